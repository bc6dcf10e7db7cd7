// What has to happen before the first paint: the theme that was chosen, and RabbitMQ's addresses.
// It stands in a file, since the page allows no script inside itself.
"use strict";
(() => {
  const root = document.documentElement, base = root.dataset.base;
  try {
    const theme = localStorage.getItem("amqpd.theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch { /* storage is switched off */ }

  // `#/queues/%2F/name` is how RabbitMQ's page names a queue.
  function follow() {
    const hash = location.hash;
    if (!hash.startsWith("#/") || hash.length < 3) return;
    const [first, ...rest] = hash.slice(2).split("?")[0].split("/");
    const known = ["queues", "exchanges", "connections", "channels", "users", "vhosts", "policies", "limits"];
    const path = known.includes(first) ? "/" + [first, ...rest].join("/") : "/";
    const here = location.pathname.slice(base.length);
    if (here === "/login") location.replace(base + "/login?to=" + encodeURIComponent(path));
    else if (here === "/" || here === "") location.replace(base + path);
  }
  addEventListener("hashchange", follow);
  follow();
})();
