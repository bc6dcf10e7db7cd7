// Node's amqplib. A line of JSON on stdin says whom to connect to and what to publish; a line on stdout, what was
// consumed. It stays connected until stdin ends. An error is a line on stderr and the exit code 1.

"use strict";

const amqp = require("amqplib");
const fs = require("node:fs");
const readline = require("node:readline");

const QUEUE = "orders";

async function connect({ host, port, tls, user, password }) {
  const options = {};
  if (tls) options.ca = [fs.readFileSync(`${tls}/ca.pem`)];
  if (password === null) {
    options.cert = fs.readFileSync(`${tls}/client.pem`);
    options.key = fs.readFileSync(`${tls}/client.key`);
  }
  // Not in the URL: there, amqplib decodes %C3%B6 as two characters.
  const { external, plain } = amqp.credentials;
  options.credentials = password === null ? external() : plain(user, password);
  return amqp.connect(`${tls ? "amqps" : "amqp"}://${host}:${port}`, options);
}

async function exchange(connection, bodies) {
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(QUEUE, { durable: true });
  for (const body of bodies) channel.sendToQueue(QUEUE, body, { persistent: true });
  await channel.waitForConfirms();
  const received = [];
  await new Promise((resolve) => {
    channel.consume(QUEUE, (message) => {
      received.push(message.content);
      channel.ack(message);
      if (received.length === bodies.length) resolve();
    });
  });
  await channel.close();
  return received;
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin });
  const told = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
  const connection = await connect(told);
  const received = await exchange(connection, told.bodies.map((body) => Buffer.from(body, "base64")));
  console.log(JSON.stringify(received.map((body) => body.toString("base64"))));
  await new Promise((resolve) => lines.once("close", resolve));
  await connection.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
