"use strict";

const SEQUENTIAL = {
  light: [[0, "#fdf3e7"], [0.35, "#f6bd7f"], [0.7, "#d9622b"], [1, "#8c2a0b"]],
  dark: [[0, "#262d33"], [0.35, "#7a4a24"], [0.7, "#d27f3d"], [1, "#ffd9a0"]],
};
const DIVERGING = {
  light: [[0, "#2b6ea6"], [0.5, "#f1f1ee"], [1, "#c8652b"]],
  dark: [[0, "#6db3e8"], [0.5, "#333c44"], [1, "#f0a060"]],
};
const CONFIG = {
  responsive: true,
  displaylogo: false,
  modeBarButtonsToRemove: ["toImage", "autoScale2d", "resetCameraLastSave3d", "orbitRotation"],
};
const ROTATION = 0.15; // radians per key
const dark = matchMedia("(prefers-color-scheme: dark)");
const json = (element) => JSON.parse(element.textContent);
const number = (value) => (value === null ? "" : String(Number(value.toPrecision(4))));

// Replace the names of colors in a figure by the colors of the light or dark page.
function themed(value) {
  const mode = dark.matches ? "dark" : "light";
  if (value === "--sequential") return SEQUENTIAL[mode];
  if (value === "--diverging") return DIVERGING[mode];
  if (typeof value === "string" && value.startsWith("--"))
    return getComputedStyle(document.documentElement).getPropertyValue(value).trim();
  if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(themed);
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item)]));
  return value;
}

function layoutOf(layout) {
  const axis = { gridcolor: "--line", linecolor: "--line", zerolinecolor: "--line", automargin: true, nticks: 6 };
  return themed({
    height: 340,
    margin: { l: 50, r: 10, t: 10, b: 45 },
    bargap: 0.15,
    modebar: { color: "--muted", activecolor: "--accent", bgcolor: "rgba(0,0,0,0)" },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { font: { family: "inherit" } },
    template: {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: "system-ui, sans-serif", size: 13, color: "--text" },
        colorway: ["--accent", "--second", "--third", "--muted", "--text"],
        xaxis: axis,
        yaxis: axis,
      },
    },
    showlegend: false,
    ...layout,
  });
}

function drawChart(plot) {
  const { data, layout } = plot.figure;
  return Plotly.react(plot, themed(data), layoutOf(layout), CONFIG);
}

// Sides of the box around a structure, whose diagonal fills the view.
function proportions(traces) {
  const sides = ["x", "y", "z"].map((axis) => {
    const values = traces.flatMap((trace) => trace[axis]).filter((value) => value !== null);
    return Math.max(...values) - Math.min(...values);
  });
  const [x, y, z] = sides.map((side) => (1.9 * side) / Math.hypot(...sides));
  return { x, y, z };
}


// The table of a target: crystals sorted by error, filtered by text and by a selection in a chart.
class Crystals {
  constructor(element) {
    this.element = element;
    this.points = json(element.querySelector(".points"));
    this.structures = json(element.querySelector(".structures"));
    this.unit = element.dataset.unit;
    this.view = element.querySelector(".view");
    this.input = element.querySelector("input");
    this.clear = element.querySelector(".clear");
    this.selected = null;
    this.isClass = typeof this.points.truth[0] === "string";
    element.querySelector("th.last").textContent = this.isClass
      ? "probability" : "error" + (this.unit ? ` [${this.unit}]` : "");
    this.input.addEventListener("input", () => this.list());
    this.clear.addEventListener("click", () => this.select(null));
    this.view?.addEventListener("keydown", (event) => this.rotate(event));
    this.list();
    const first = this.points.id.find((id) => id in this.structures);
    if (first !== undefined) this.show(first);
  }

  select(rows) {
    this.selected = rows && new Set(rows);
    this.clear.hidden = !rows;
    if (!rows && this.chart) {
      Plotly.restyle(this.chart, { selectedpoints: [null] });
      Plotly.relayout(this.chart, { selections: [] });
    }
    this.list();
  }

  list() {
    const text = this.input.value.trim();
    const { id, formula, loss } = this.points;
    const matches = [];
    for (let row = 0; row < id.length; row++)
      if ((!this.selected || this.selected.has(row)) &&
          (id[row].toLowerCase().includes(text.toLowerCase()) || formula[row].includes(text)))
        matches.push(row);
    const shown = matches.slice(0, Number(this.element.dataset.shown));
    this.element.querySelector("tbody").replaceChildren(...shown.map((row) => this.row(row)));
    const mean = matches.reduce((sum, row) => sum + loss[row], 0) / matches.length;
    const unit = this.unit ? ` ${this.unit}` : "";
    const what = this.selected || text ? "found" : "in total";
    let status = `${matches.length.toLocaleString("en")} crystals ${what}`;
    if (matches.length && !this.isClass) status += `, mean error ${number(mean)}${unit}`;
    if (matches.length > shown.length) status += `; the ${shown.length} largest errors are shown`;
    this.element.querySelector(".status").textContent = status;
  }

  row(row) {
    const { id, formula, truth, prediction, error, note } = this.points;
    const line = document.createElement("tr");
    line.classList.toggle("shown", id[row] === this.current);
    line.dataset.id = id[row];
    const cells = [id[row], formula[row], truth[row], prediction[row], error[row], note[row].replaceAll(";", "; ")];
    for (const [place, value] of cells.entries()) {
      const cell = line.insertCell();
      if (place === 0 && value in this.structures) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = value;
        button.addEventListener("click", () => this.show(value));
        cell.append(button);
      } else cell.textContent = typeof value === "number" ? number(value) : value ?? "";
      cell.classList.toggle("number", place >= 2 && place <= 4);
    }
    return line;
  }

  show(id) {
    this.current = id;
    const formula = this.points.formula[this.points.id.indexOf(id)];
    this.element.querySelector(".name").textContent = `${formula} (${id})`;
    for (const line of this.element.querySelectorAll("tbody tr"))
      line.classList.toggle("shown", line.dataset.id === id);
    this.draw({ eye: { x: 1.5, y: 0.75, z: 0.55 }, projection: { type: "orthographic" } });
  }

  draw(camera) {
    if (!this.view || this.current === undefined) return;
    const hidden = { visible: false };
    const traces = this.structures[this.current];
    const isColored = traces.some((trace) => trace.marker?.coloraxis);
    const domain = { y: [isColored ? 0.2 : 0, 1] };
    const scene = { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "manual", aspectratio: proportions(traces), camera, domain };
    const colorbar = { orientation: "h", thickness: 8, len: 0.7, y: 0, yanchor: "bottom", nticks: 3,
      title: { text: "contribution", side: "top" } };
    const coloraxis = { colorscale: "--diverging", cmid: 0, colorbar };
    const layout = { scene, coloraxis, height: null, margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: !isColored,
      legend: { orientation: "h", x: 0.02, y: 0.02, yanchor: "bottom", itemsizing: "constant" } };
    Plotly.react(this.view, themed(traces), layoutOf(layout), { ...CONFIG, displayModeBar: false });
  }

  rotate(event) {
    const turn = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!turn) return;
    event.preventDefault();
    const camera = this.view.layout.scene.camera;
    const { x, y, z } = camera.eye;
    const radius = Math.hypot(x, y, z);
    const around = Math.atan2(y, x) + turn[0] * ROTATION;
    const limit = Math.PI / 2 - 0.05;
    const above = Math.max(-limit, Math.min(limit, Math.asin(z / radius) + turn[1] * ROTATION));
    const eye = {
      x: radius * Math.cos(above) * Math.cos(around),
      y: radius * Math.cos(above) * Math.sin(around),
      z: radius * Math.sin(above),
    };
    Plotly.relayout(this.view, { "scene.camera": { ...camera, eye } });
  }
}

async function start() {
  const tables = {};
  for (const element of document.querySelectorAll(".crystals"))
    tables[element.id] = new Crystals(element);
  const plots = [...document.querySelectorAll(".plot")];
  for (const plot of plots) {
    plot.figure = json(plot.parentElement.querySelector("script"));
    await drawChart(plot);
    const table = tables[plot.dataset.points];
    if (table) {
      table.chart = plot;
      plot.on("plotly_selected", (event) => {
        const points = event?.points ?? [];
        if (points.length) table.select(points.map((point) => point.customdata));
      });
      plot.on("plotly_deselect", () => table.select(null));
    }
    await new Promise((resume) => setTimeout(resume)); // the page stays responsive
  }
  dark.addEventListener("change", () => {
    plots.forEach(drawChart);
    Object.values(tables).forEach((table) => table.draw(table.view?.layout.scene.camera));
  });
  document.documentElement.dataset.ready = "true";
}

start();
