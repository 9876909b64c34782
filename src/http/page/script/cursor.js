// The readout of a chart: the time and the rates under the pointer, or at the place that the arrow keys select. All digits
// come from the server.

const PAGE_POINTS = 10; // points that Page Up and Page Down move by
const SVG = "http://www.w3.org/2000/svg";

// The selected time, in milliseconds. A refresh of the chart keeps it.
let cursorTime = null;

const readLines = (figure) =>
  [...figure.querySelectorAll(".points > div")].map(({ dataset }) => ({
    name: dataset.name,
    kind: dataset.kind,
    points: (dataset.points ? dataset.points.split(";") : []).map((text) => {
      const [time, ...values] = text.split(" ");
      return { time: Number(time), values };
    }),
    silences: (dataset.silences ? dataset.silences.split(";") : []).map((text) => text.split(" ").map(Number)),
  }));

// Returns the last point at or before a time.
const pointAt = ({ points }, time) => {
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].time <= time) low = middle + 1;
    else high = middle;
  }
  return low ? points[low - 1] : null;
};

const describe = (line, point, time, isNamed) => {
  if (!point) return isNamed ? `${line.name}: no rate` : "no rate";
  const name = isNamed ? `${line.name} ` : "";
  if (line.kind === "candles") {
    const [open, high, low, close, unfinished] = point.values;
    return `${name}open ${open}, high ${high}, low ${low}, close ${close}${unfinished ? ", so far" : ""}`;
  }
  const [rate, low, high, lowest, highest] = point.values;
  const merged = lowest ? `, moved between ${lowest} and ${highest}` : "";
  const isSilent = line.silences.some(([from, until]) => from < time && time < until);
  return `${name}${rate} (${low} to ${high})${merged}${isSilent ? ", silent: not confirmed" : ""}`;
};

const lineElement = (name) => {
  const element = document.createElementNS(SVG, name);
  element.setAttribute("class", name === "path" ? "crosshair" : "crosspoint");
  return element;
};

// Draws the crosshair into one of the pictures.
const drawCross = (svg, time, heights) => {
  for (const old of svg.querySelectorAll(".crosshair, .crosspoint")) old.remove();
  if (time === null) return;
  const [start, end, low, high, left, right, top, bottom] = ["start", "end", "low", "high", "left", "right", "top", "bottom"].map(
    (name) => Number(svg.dataset[name]),
  );
  const x = left + ((time - start) / Math.max(end - start, 1)) * (right - left);
  const path = lineElement("path");
  const ys = heights.map((height) => bottom - ((height - low) / (high - low)) * (bottom - top));
  path.setAttribute("d", `M${x} ${top}V${bottom}${ys.map((y) => `M${left} ${y}H${right}`).join("")}`);
  svg.append(path);
  for (const y of ys) {
    const point = lineElement("circle");
    point.setAttribute("cx", x);
    point.setAttribute("cy", y);
    point.setAttribute("r", 3.5);
    svg.append(point);
  }
};

// Adds the readout to the chart. Without this script, the table below the chart has the same numbers.
const startCursor = () => {
  const figure = document.querySelector("#chart figure");
  const plot = figure?.querySelector(".plot");
  const lines = plot ? readLines(figure) : [];
  const times = [...new Set(lines.flatMap(({ points }) => points.map(({ time }) => time)))].sort((a, b) => a - b);
  if (!times.length || plot.querySelector(".cursor")) return;
  const readout = document.createElement("p");
  readout.className = "readout";
  plot.after(readout);
  const cursor = document.createElement("div");
  cursor.className = "cursor";
  cursor.tabIndex = 0;
  cursor.setAttribute("role", "slider");
  cursor.setAttribute("aria-label", "Time in the chart: the arrow keys read the rates");
  cursor.setAttribute("aria-valuemin", 0);
  cursor.setAttribute("aria-valuemax", times.length - 1);
  plot.append(cursor);
  const hint = `Point at the chart, or select it and press the arrow keys, to read ${figure.querySelector(".points").dataset.unit}.`;

  const show = (time) => {
    cursorTime = time;
    const points = lines.map((line) => (time === null ? null : pointAt(line, time)));
    const isNamed = lines.length > 1;
    const texts = lines.map((line, at) => describe(line, points[at], time, isNamed));
    readout.textContent = time === null ? hint : `${clockText(time)} UTC: ${texts.join("; ")}`;
    const heights = points.flatMap((point, at) => {
      if (!point) return [];
      return [Number(point.values[lines[at].kind === "candles" ? 3 : 0])];
    });
    for (const svg of plot.querySelectorAll("svg")) drawCross(svg, time, heights);
    const at = time === null ? times.length - 1 : Math.max(times.findLastIndex((one) => one <= time), 0);
    cursor.setAttribute("aria-valuenow", at);
    cursor.setAttribute("aria-valuetext", readout.textContent);
  };

  const svgShown = () => [...plot.querySelectorAll("svg")].find((svg) => svg.getBoundingClientRect().width > 0);
  const timeAt = (event) => {
    const { dataset, viewBox } = svgShown();
    const box = cursor.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * viewBox.baseVal.width;
    const part = (x - Number(dataset.left)) / (Number(dataset.right) - Number(dataset.left));
    const [start, end] = [Number(dataset.start), Number(dataset.end)];
    return Math.round(start + Math.min(Math.max(part, 0), 1) * (end - start));
  };
  cursor.addEventListener("pointermove", (event) => show(timeAt(event)));
  cursor.addEventListener("pointerdown", (event) => show(timeAt(event)));
  cursor.addEventListener("pointerleave", (event) => {
    // After a touch, and after a key, the readout stays.
    if (event.pointerType === "mouse" && document.activeElement !== cursor) show(null);
  });
  cursor.addEventListener("keydown", (event) => {
    const here = cursorTime ?? Infinity;
    const before = times.findLastIndex((time) => time < here);
    const next = times.findIndex((time) => time > here);
    const last = times.length - 1;
    const to = {
      ArrowLeft: () => Math.max(before, 0),
      ArrowDown: () => Math.max(before, 0),
      ArrowRight: () => (next < 0 ? last : next),
      ArrowUp: () => (next < 0 ? last : next),
      PageUp: () => Math.min((next < 0 ? last : next) + PAGE_POINTS - 1, last),
      PageDown: () => Math.max(before - PAGE_POINTS + 1, 0),
      Home: () => 0,
      End: () => last,
    }[event.key];
    if (event.key === "Escape") show(null);
    else if (to) show(times[to()]);
    else return;
    event.preventDefault();
  });
  const isInside = cursorTime !== null && cursorTime >= times[0] && cursorTime <= Number(svgShown()?.dataset.end);
  show(isInside ? cursorTime : null);
};
