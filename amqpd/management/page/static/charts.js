// Charts: each [data-chart] figure names its data and its series, and is drawn with uPlot in the colours of the theme.
//
// data-chart   the path of an answer of the API, without the range: several charts of one path ask once
// data-series  JSON: [{"path": "queue_totals.messages_ready", "label": "Ready", "colour": "wait", "rate": false}, …]
//              The path leads to a number; its samples are in the key beside it, PATH_details.samples. With `rate` the
//              samples are of a count that rises, and its change per second is shown. With "per", the path of another
//              count, they are a total of microseconds, and the change in ms for each of that count is shown.
// data-unit    number, rate, bytes, flow (bytes per second) or ms
"use strict";
(() => {
  const RANGES = { "10m": [600, 5], "1h": [3600, 60], "8h": [28800, 600], "24h": [86400, 600] };
  const KINDS = ["lengths", "msg_rates", "data_rates", "node_stats"];
  const charts = new Map();
  let range = "10m";

  const at = (value, path) => path.split(".").reduce((found, key) => (found == null ? found : found[key]), value);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  function bytes(value) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let place = 0;
    while (Math.abs(value) >= 1024 && place < units.length - 1) { value /= 1024; place += 1; }
    return `${value >= 100 || place === 0 ? Math.round(value) : Number(value.toPrecision(3))} ${units[place]}`;
  }
  function short(value) {
    const size = Math.abs(value);
    if (size >= 1e9) return `${Number((value / 1e9).toPrecision(3))} G`;
    if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))} M`;
    if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))} k`;
    return size >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(2)));
  }
  const units = {
    number: short, bytes,
    rate: (value) => `${short(value)}/s`, flow: (value) => `${bytes(value)}/s`,
    ms: (value) => `${Number(value.toPrecision(3))} ms`,
  };

  // The samples of one series, oldest first: [times in s, values].
  function samples(answer, one) {
    const found = at(answer, one.path + "_details");
    const list = found && found.samples ? [...found.samples].reverse() : [];
    const times = list.map((sample) => sample.timestamp / 1000), values = list.map((sample) => sample.sample);
    if (one.per) {
      const counts = samples(answer, { path: one.per })[1];
      const each = values.map((value, place) => {
        const count = place && counts[place] - counts[place - 1];
        return count > 0 ? (value - values[place - 1]) / count / 1000 : null;
      });
      return [times.slice(1), each.slice(1)];
    }
    if (!one.rate) return [times, values];
    const rates = values.map((value, place) => (
      place === 0 ? null : Math.max(0, (value - values[place - 1]) / (times[place] - times[place - 1]))));
    return [times.slice(1), rates.slice(1)];
  }

  function axis(unit) {
    const line = colour("line"), ink = colour("ink-3"), font = `11px ${colour("font")}`;
    const common = { stroke: ink, font, ticks: { show: false }, grid: { stroke: line, width: 1 } };
    return [
      { ...common, grid: { show: false }, size: 22, gap: 4, space: 70, values: (plot, splits) => splits.map((time) => (
        new Date(time * 1000).toLocaleTimeString("en-GB", range === "10m" ? undefined : { hour: "2-digit", minute: "2-digit" }))) },
      { ...common, size: 60, gap: 6, space: 30,
        values: (plot, splits) => splits.map((value) => units[unit === "flow" ? "bytes" : unit](value)) },
    ];
  }

  function draw(figure, answer) {
    const series = JSON.parse(figure.dataset.series), unit = figure.dataset.unit || "number";
    const box = figure.querySelector(".plot");
    const found = series.map((one) => samples(answer, one));
    const longest = found.reduce((most, one) => (one[0].length > most.length ? one[0] : most), []);
    if (!longest.length) {
      box.dataset.waits = "No samples yet: the first ones come within 10 s.";
      box.classList.add("waits");
      return;
    }
    box.classList.remove("waits");
    const empty = longest.map(() => 0);
    const data = [longest, ...found.map((one) => (one[1].length === longest.length ? one[1] : empty))];
    series.forEach((one, place) => {
      const shown = figure.querySelector(`[data-of="${place}"] b`);
      const values = data[place + 1], value = values[values.length - 1];
      if (shown) shown.textContent = value == null ? "–" : units[unit](value);
    });
    const old = charts.get(figure), width = box.clientWidth, height = box.clientHeight;
    if (old && old.range === range && old.theme === colour("act")) {
      old.plot.setData(data);
      return;
    }
    if (old) old.plot.destroy();
    const plot = new uPlot({
      width, height, legend: { show: false }, padding: [8, 26, 0, 0],
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
      scales: { y: { range: (self, least, most) => [0, most > 0 ? most * 1.08 : unit === "bytes" || unit === "flow" ? 1024 : 1] } },
      axes: axis(unit),
      hooks: { setLegend: [(self) => point(figure, self, unit)] },
      series: [{}, ...series.map((one) => ({
        label: one.label, stroke: colour(one.colour), width: 1.5, points: { show: false }, spanGaps: true,
        fill: series.length === 1 ? colour(one.colour) + "1f" : undefined }))],
    }, data, box);
    charts.set(figure, { plot, range, theme: colour("act") });
  }

  // The values under the pointer stand in the head of the chart.
  function point(figure, plot, unit) {
    const place = plot.cursor.idx;
    for (let number = 1; number < plot.series.length; number += 1) {
      const values = plot.data[number], value = values[place == null ? values.length - 1 : place];
      const shown = figure.querySelector(`[data-of="${number - 1}"] b`);
      if (shown) shown.textContent = value == null ? "–" : units[unit](value);
    }
  }

  async function load() {
    if (document.hidden) return;
    const paths = new Map();
    for (const figure of document.querySelectorAll("[data-chart]")) {
      const path = figure.dataset.chart;
      paths.set(path, [...(paths.get(path) || []), figure]);
    }
    const [age, increment] = RANGES[range];
    for (const [path, figures] of paths) {
      const query = KINDS.map((kind) => `${kind}_age=${age}&${kind}_incr=${increment}`).join("&");
      try {
        const answer = await fetch(path + (path.includes("?") ? "&" : "?") + query, { headers: { accept: "application/json" } });
        if (!answer.ok) continue;
        const found = await answer.json();
        figures.forEach((figure) => draw(figure, found));
      } catch { /* the broker does not answer: the next tick asks again */ }
    }
  }

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-range]")) {
      range = event.target.value;
      load();
    }
  });
  document.addEventListener("amqpd:tick", load);
  document.addEventListener("amqpd:theme", load);
  new ResizeObserver(() => charts.forEach((one, figure) => {
    const box = figure.querySelector(".plot");
    if (!figure.isConnected) charts.delete(figure);
    else if (box.clientWidth !== one.plot.width) one.plot.setSize({ width: box.clientWidth, height: box.clientHeight });
  })).observe(document.body);
  load();
})();
