"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const reading = document.getElementById("reading");
  const plots = [...document.querySelectorAll("[data-plot]")];
  const slots = Math.max(1, Math.ceil(data.seconds / data.slot - 1e-9));
  const cursors = plots.map((plot) => {
    const cursor = document.createElement("i");
    cursor.className = "cursor";
    plot.append(cursor);
    return cursor;
  });
  let at = 0;

  const element = (name, text) => Object.assign(document.createElement(name), { textContent: text });

  const time = (seconds) => {
    const moment = new Date((data.start + data.offset + seconds) * 1000);
    return moment.toISOString().slice(0, 16).replace("T", " ") + ", hour " + (seconds / 3600).toFixed(1);
  };

  const show = (plot, slot) => {
    at = Math.min(slots - 1, Math.max(0, slot));
    const share = Math.min(1, ((at + 0.5) * data.slot) / data.seconds);
    for (const cursor of cursors) cursor.style.left = 100 * share + "%";
    document.body.classList.add("reading");
    const rows = Object.entries(data.plots[Number(plot.dataset.plot)]).map(([name, labels]) => {
      const row = element("div", "");
      row.append(element("span", name), element("b", labels[at] || "not measured"));
      return row;
    });
    const near = data.events.filter(([where]) => Math.floor((where * data.seconds) / data.slot) === at);
    reading.replaceChildren(element("p", time(at * data.slot)), ...rows, ...near.map(([, text]) => element("p", text)));
    reading.hidden = false;
    const box = plot.getBoundingClientRect();
    const x = box.left + share * box.width;
    const left = x + 16 + reading.offsetWidth < innerWidth ? x + 16 : Math.max(4, x - 16 - reading.offsetWidth);
    reading.style.left = left + "px";
    reading.style.top = Math.max(4, Math.min(box.top + 8, innerHeight - reading.offsetHeight - 4)) + "px";
  };

  const hide = () => {
    reading.hidden = true;
    document.body.classList.remove("reading");
  };

  const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
  for (const plot of plots) {
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      show(plot, Math.floor((((event.clientX - box.left) / box.width) * data.seconds) / data.slot));
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      if (!(event.key in steps)) return;
      event.preventDefault();
      show(plot, at + steps[event.key]);
    });
  }
})();
