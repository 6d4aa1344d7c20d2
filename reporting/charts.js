"use strict";

// Shows the values at the pointer, or at the position chosen with the arrow keys.
const tip = document.getElementById("tip");

function show(plot, data, row) {
  const head = document.createElement("strong");
  head.textContent = data.heads[row];
  const lines = data.names.flatMap((name, index) => {
    if (!data.rows[row][index]) return [];
    const line = document.createElement("p");
    const mark = document.createElement("b");
    const value = document.createElement("span");
    line.className = `c${data.colors[index]}`;
    value.textContent = data.rows[row][index];
    line.append(mark, data.names.length > 1 ? `${name} ` : "", value);
    return [line];
  });
  tip.lastElementChild.replaceChildren(head, ...lines);
  tip.hidden = false;
  tip.style.setProperty("--at", `${100 * data.at[row]}%`);
  tip.classList.toggle("left", data.at[row] > 0.5);
  plot.append(tip);
}

for (const plot of document.querySelectorAll(".plot")) {
  const data = JSON.parse(plot.dataset.hover);
  if (!data.at.length) continue;
  let row = data.at.length - 1;
  const hide = () => { tip.hidden = true; };
  const point = (event) => {
    const { left, width } = plot.getBoundingClientRect();
    const x = (event.clientX - left) / width;
    row = data.at.reduce((best, at, index) => (Math.abs(at - x) < Math.abs(data.at[best] - x) ? index : best), 0);
    show(plot, data, row);
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    row = Math.min(Math.max(row + by, 0), data.at.length - 1);
    show(plot, data, row);
  });
}
