// Actions on many rows of a list: on the marked ones, or on all that match (see bulk.py and templates/parts/bulk.html).
// The server acts on a part in each request; so it is never long at one thing, and what has been done is always known.
"use strict";
(() => {
  const bar = document.querySelector("[data-bulk]");
  if (!bar) return;
  const PART = 100, MOST_NAMES = 8, MOST_FAILURES = 200;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const boxes = () => all('input[name="row"]'), marked = () => boxes().filter((box) => box.checked);
  const whole = bar.querySelector("[data-all]");
  const found = () => Number((document.querySelector("[data-found-rows]") || { dataset: {} }).dataset.foundRows || 0);
  const counted = (count) => `${count.toLocaleString("en")} ${count === 1 ? bar.dataset.noun : bar.dataset.plural}`;
  const count = () => (whole.checked ? found() : marked().length);
  const nameOf = (box) => { const key = JSON.parse(box.value); return key[bar.dataset.bulk.endsWith("consumers") ? 2 : key.length - 1]; };

  function show() {
    const isMore = found() > boxes().length && marked().length === boxes().length && boxes().length > 0;
    bar.querySelector("[data-whole]").hidden = !isMore;
    if (!isMore) whole.checked = false;
    bar.querySelector("[data-found]").textContent = found().toLocaleString("en");
  }
  function unmark() {
    all('input[name="row"], [data-mark-all]').forEach((box) => { box.checked = false; });
    whole.checked = false;
    document.dispatchEvent(new CustomEvent("amqpd:marked"));
  }
  function entry(text) {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  }

  // A dialog opens: it says what and how many.
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open^='bulk-']");
    if (event.target.closest("[data-unmark]")) unmark();
    if (!opener) return;
    const dialog = document.getElementById(opener.dataset.open), form = dialog.querySelector("form");
    const names = whole.checked ? [] : marked().map(nameOf);
    form.reset();
    all("[data-counted]", dialog).forEach((one) => { one.textContent = counted(count()); });
    form.querySelector("[type=submit]").textContent = `${form.dataset.verb} ${counted(count())}`;
    const listed = names.slice(0, MOST_NAMES).map((name) => entry(name || "(empty name)"));
    if (names.length > MOST_NAMES) listed.push(entry(`and ${(names.length - MOST_NAMES).toLocaleString("en")} more`));
    form.querySelector("[data-names]").replaceChildren(...listed);
    form.querySelector("[data-failures]").replaceChildren();
    form.querySelector("[data-result]").textContent = "";
    form.querySelector("[data-progress]").hidden = true;
    form.querySelector("[type=submit]").hidden = false;
    form.querySelector("[data-keep]").textContent = "Keep";
    const typed = form.querySelector("[data-typed]"), isTyped = whole.checked && "destroys" in form.dataset;
    typed.hidden = !isTyped;
    typed.querySelector("b").textContent = String(count());
    typed.querySelector("input").required = isTyped;
  });

  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-bulk-form]")) return;
    event.preventDefault();
    run(event.target);
  });

  async function run(form) {
    const typed = form.querySelector("[data-typed]"), result = form.querySelector("[data-result]");
    if (!typed.hidden && typed.querySelector("input").value.trim().replaceAll(",", "") !== String(count())) {
      result.textContent = `Type ${count()}, which is how many there are.`;
      return;
    }
    const dialog = form.closest("dialog"), total = count(), isWhole = whole.checked;
    const rows = marked().map((box) => box.value);
    const button = form.querySelector("[type=submit]"), keep = form.querySelector("[data-keep]");
    const progress = form.querySelector("[data-progress]"), failures = form.querySelector("[data-failures]");
    let done = 0, failed = 0, next = 1, problem = "", isStopped = false;
    const stop = () => { isStopped = true; };
    dialog.addEventListener("close", stop, { once: true });
    button.hidden = progress.hidden = true;
    progress.hidden = false;
    typed.hidden = true;
    keep.textContent = "Stop";
    result.textContent = "";
    for (let place = 0; !isStopped && !problem && (isWhole ? next : place < rows.length); place += PART) {
      const body = new URLSearchParams(new FormData(form));
      if (isWhole) {
        body.set("all", "1");
        for (const [name, value] of Object.entries(JSON.parse(bar.dataset.filter))) body.set(name, value);
        if (place) body.set("page", String(next));
      } else rows.slice(place, place + PART).forEach((row) => body.append("row", row));
      try {
        const answer = await fetch(`${bar.dataset.bulk}/${form.dataset.bulkForm}`, {
          method: "POST", body, headers: { "HX-Request": "true", "HX-Current-URL": location.href } });
        if (!(answer.headers.get("content-type") || "").startsWith("application/json")) {
          if (answer.headers.get("hx-redirect")) location.assign(answer.headers.get("hx-redirect"));
          problem = (await answer.text()) || "The broker did not do it.";
          break;
        }
        const part = await answer.json();
        if (!answer.ok) {
          problem = String(part.reason);
          break;
        }
        next = part.next;
        done += part.done;
        failed += part.failed.length;
        part.failed.slice(0, Math.max(0, MOST_FAILURES - failures.childElementCount)).forEach((one) => {
          failures.append(entry(`${one.name}: ${one.reason}`));
        });
      } catch {
        problem = "The broker does not answer.";
      }
      progress.querySelector("progress").max = Math.max(total, done + failed);
      progress.querySelector("progress").value = done + failed;
      progress.querySelector("span").textContent = `${(done + failed).toLocaleString("en")} of ${total.toLocaleString("en")}`;
    }
    dialog.removeEventListener("close", stop);
    progress.hidden = true;
    keep.textContent = "Close";
    const said = `${counted(done)} ${done === 1 ? "is" : "are"} ${form.dataset.past}.`;
    if (!failed && !problem && !isStopped) {
      unmark();
      document.dispatchEvent(new CustomEvent("amqpd:done", { detail: { text: said } }));
      return;
    }
    if (failed > failures.childElementCount) {
      failures.append(entry(`and ${(failed - failures.childElementCount).toLocaleString("en")} more`));
    }
    const rest = isStopped ? " The rest was stopped." : problem ? ` Then it ended: ${problem}` : "";
    result.textContent = said + (failed ? ` ${counted(failed)} failed:` : "") + rest;
    unmark();
    if (!dialog.open) document.dispatchEvent(new CustomEvent("amqpd:done", { detail: { text: result.textContent } }));
    else document.dispatchEvent(new CustomEvent("amqpd:refresh"));
  }

  document.addEventListener("change", show);
  document.addEventListener("htmx:after:swap", show);
  document.addEventListener("amqpd:marked", show);
  show();
})();
