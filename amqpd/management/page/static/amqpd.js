// The behaviour that all pages share. Everything here finds its elements by data- attributes, see templates/parts.
"use strict";
(() => {
  const root = document.documentElement, base = root.dataset.base, TICK_MS = 5000;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Live parts: [data-live] elements are asked for again by their id when the broker says so (/live), or every 5 s if it
  // does not, unless the tab is hidden, a field in them is used, or a row is marked: a mark must not come to another row.
  let last = Date.now();
  const isBusy = (element) => element.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")
    || element.querySelector("dialog[open], details[open], .mark input:checked");
  function tick(isChange) {
    if (document.hidden) return;
    if (isChange !== true) last = Date.now();
    for (const element of all("[data-live]")) {
      if (isBusy(element)) continue;
      htmx.ajax("GET", element.dataset.live || location.pathname + location.search,
        { source: element, target: "#" + element.id, swap: "innerMorph" });
    }
    if (isChange !== true) document.dispatchEvent(new CustomEvent("amqpd:tick"));
  }
  let stream = null;
  function follow() {     // a hidden tab holds no stream: browsers allow few for a host
    if (document.hidden || !document.querySelector("[data-live]")) {
      if (stream) stream.close();
      stream = null;
    } else if (!stream || stream.readyState === EventSource.CLOSED) {
      stream = new EventSource(base + "/live");
      stream.addEventListener("message", (event) => tick(event.data === "changed"));
    }
  }
  setInterval(() => {
    if (Date.now() - last >= TICK_MS * 1.5) { tick(); follow(); }
  }, TICK_MS / 2);
  document.addEventListener("visibilitychange", () => {
    follow();
    if (!document.hidden && Date.now() - last >= TICK_MS) tick();
  });
  addEventListener("pagehide", () => { if (stream) stream.close(); });
  addEventListener("pageshow", follow);

  // A line that says what was done; it outlives the way to another page.
  let timer = 0;
  function flash(text, isBad) {
    const line = document.getElementById("flash");
    line.textContent = text;
    line.classList.toggle("bad", Boolean(isBad));
    line.hidden = false;
    clearTimeout(timer);
    timer = setTimeout(() => { line.hidden = true; }, 6000);
  }
  function recall() {
    try {
      const text = sessionStorage.getItem("amqpd.flash");
      sessionStorage.removeItem("amqpd.flash");
      if (text) flash(text);
    } catch { /* storage is switched off */ }
  }
  document.addEventListener("amqpd:done", (event) => {
    const { text, to } = event.detail;
    all("dialog[open]").forEach((dialog) => dialog.close());
    if (!to) {
      flash(text);
      tick();
      return;
    }
    try { sessionStorage.setItem("amqpd.flash", text); } catch { /* then without the line */ }
    location.assign(base + to);
  });
  document.addEventListener("htmx:error", () => flash("The broker does not answer.", true));

  // Dialogs: [data-open=ID] opens one, [data-close] closes it. [data-count] elements in it name how many are marked.
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]"), closer = event.target.closest("[data-close]");
    if (opener) {
      const dialog = document.getElementById(opener.dataset.open);
      all("[data-count]", dialog).forEach((one) => { one.textContent = countMarked(one.dataset.count); });
      all(".errors", dialog).forEach((one) => { one.textContent = ""; });
      fillIn(dialog, JSON.parse(opener.dataset.values || "{}"));
      dialog.showModal();
    } else if (closer) {
      closer.closest("dialog").close();
    } else if (event.target.matches("dialog")) {
      event.target.close();                         // a click beside it
    }
    const menu = event.target.closest("details.menu");
    all("details.menu[open]").forEach((one) => { if (one !== menu) one.open = false; });
    if (event.target.closest("[data-menu]")) document.body.classList.toggle("menu-open");
    const theme = event.target.closest("[data-theme-switch]");
    if (theme) switchTheme();
  });

  // [data-values] of a button are the values that its dialog begins with: of fields by name, of [data-value=NAME] texts.
  function fillIn(dialog, values) {
    for (const [name, value] of Object.entries(values)) {
      all(`[name="${CSS.escape(name)}"]`, dialog).forEach((field) => { field.value = value; });
      all(`[data-value="${CSS.escape(name)}"]`, dialog).forEach((one) => { one.textContent = value; });
    }
  }

  // Rows that are marked: [data-mark-all=NAME] marks all boxes of that name; [data-marked=NAME] is shown if any is.
  const marked = (name) => all(`input[name="${CSS.escape(name)}"]:checked`);
  const countMarked = (name) => marked(name).length.toLocaleString("en");
  function showMarked() {
    for (const element of all("[data-marked]")) {
      const count = marked(element.dataset.marked).length;
      element.hidden = !count;
      all("[data-number]", element).forEach((one) => { one.textContent = count.toLocaleString("en"); });
    }
  }
  document.addEventListener("change", (event) => {
    const name = event.target.dataset && event.target.dataset.markAll;
    if (name) all(`input[name="${CSS.escape(name)}"]`).forEach((box) => { box.checked = event.target.checked; });
    if (event.target.closest("[data-submit-on-change]")) event.target.form.requestSubmit();
    showMarked();
  });

  // Forms of a list send nothing for fields that are empty, so that addresses stay short.
  document.addEventListener("submit", (event) => {
    if (event.target.matches("[data-short]")) {
      all("input, select", event.target).forEach((field) => { field.disabled = field.value === ""; });
      setTimeout(() => all("input, select", event.target).forEach((field) => { field.disabled = false; }));
    }
  });

  // Columns of a list: the checked boxes become one parameter.
  document.addEventListener("change", (event) => {
    const chooser = event.target.closest("[data-columns]");
    if (!chooser) return;
    const address = new URL(location.href);
    address.searchParams.set("columns", all("input:checked", chooser).map((box) => box.value).join(","));
    location.assign(address);
  });

  // Theme: of the system, or the other one, which is kept.
  function switchTheme() {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    try { localStorage.setItem("amqpd.theme", root.dataset.theme); } catch { /* not kept */ }
    document.dispatchEvent(new CustomEvent("amqpd:theme"));
  }

  // Keyboard: `/` goes to the search field, `g` and a key to a page, `?` shows the keys.
  let isGoing = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, textarea, select, [contenteditable]") || document.querySelector("dialog[open]")) return;
    if (isGoing) {
      isGoing = false;
      const link = all("[data-key]").find((one) => one.dataset.key === event.key);
      if (link) { event.preventDefault(); location.assign(link.href); }
    } else if (event.key === "g") {
      isGoing = true;
      setTimeout(() => { isGoing = false; }, 1500);
    } else if (event.key === "/") {
      const field = document.querySelector("main input[type=search]");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
    } else if (event.key === "?") {
      const keys = document.getElementById("keys");
      if (keys) keys.showModal();
    }
  });

  // A link from another site sends no cookie at first: ask again from here whether there is a session.
  async function skipGate() {
    const gate = document.querySelector("[data-gate]");
    if (!gate) return;
    const answer = await fetch(base + "/session", { redirect: "manual" });
    if (answer.status === 204) location.replace(base + gate.dataset.gate);
  }

  document.addEventListener("amqpd:marked", showMarked);
  document.addEventListener("amqpd:refresh", () => tick());
  document.addEventListener("htmx:after:swap", showMarked);
  recall();
  showMarked();
  skipGate();
})();
