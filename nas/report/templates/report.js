"use strict";
document.documentElement.classList.add("js");

const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// A button that calls `tick` so many times a second, until it is pressed again.
function playable(button, rate, tick) {
  let timer = 0;
  const set = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(tick, 1000 / rate) : 0;
    button.textContent = on ? "Pause" : "Play";
    button.setAttribute("aria-pressed", on);
  };
  button.addEventListener("click", () => set(!timer));
  return set;
}

// Plots: point at one to read its values.
for (const plot of all(".plot")) {
  const [first, last, lines] = JSON.parse(plot.dataset.points);
  const area = plot.querySelector(".area");
  const told = plot.querySelector(".told");
  const cursor = plot.querySelector(".cursor");
  const show = (event) => {
    const box = area.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const wanted = first + share * (last - first);
    let at = wanted;
    const texts = lines.map(([name, steps, values]) => {
      const near = steps.reduce((best, step, i) => (Math.abs(step - wanted) < Math.abs(steps[best] - wanted) ? i : best), 0);
      at = steps[near];
      const value = values[near] === null ? "–" : Number(values[near].toPrecision(4));
      return lines.length > 1 ? `${name} ${value}` : value;
    });
    cursor.hidden = false;
    cursor.style.left = `${(100 * (at - first)) / Math.max(last - first, 1)}%`;
    if (told) told.textContent = `${plot.dataset.unit} ${at}: ${texts.join(", ")}`;
  };
  area.addEventListener("pointermove", show);
  area.addEventListener("pointerdown", show);
  area.addEventListener("pointerleave", () => {
    cursor.hidden = true;
    if (told) told.textContent = "";
  });
}

// The timeline: one slider moves the weights, the derived cells, and a mark in every plot of the search.
const section = document.getElementById("timeline");
if (section) {
  const data = JSON.parse(document.getElementById("timeline-data").textContent);
  const slider = document.getElementById("epoch");
  const output = section.querySelector("output");
  const total = data.steps[data.steps.length - 1];
  const show = () => {
    const epoch = Number(slider.value);
    const text = `step ${data.steps[epoch]} of ${total}`;
    slider.setAttribute("aria-valuetext", text);
    output.textContent = text;
    for (const course of all("[data-course]", section)) {
      const i = Number(course.dataset.course);
      const chosen = data.chosen[i][epoch];
      const taken = course.querySelector(".taken");
      const name = chosen < 0 ? "· left out" : `→ ${data.candidates[i][chosen]}`;
      taken.textContent = chosen === null ? "" : name;
      all(".bars li", course).forEach((item, candidate) => {
        const weight = data.weights[i][epoch][candidate];
        item.classList.toggle("taken", candidate === chosen);
        item.querySelector("i").style.setProperty("--w", `${(100 * weight) / course.dataset.top}%`);
        item.querySelector("b").textContent = weight.toFixed(3);
      });
    }
    for (const picture of all("[data-picture]", section)) {
      picture.hidden = !data.pictures[epoch].includes(Number(picture.dataset.picture));
    }
    section.querySelector("[data-none]").hidden = data.pictures[epoch].length > 0;
    for (const plot of all(".timed")) {
      const [first, last] = JSON.parse(plot.dataset.points);
      const now = plot.querySelector(".now");
      now.hidden = false;
      now.style.left = `${Math.min(100, Math.max(0, (100 * (data.steps[epoch] - first)) / Math.max(last - first, 1)))}%`;
    }
  };
  const play = playable(section.querySelector(".play"), 3, () => {
    slider.value = slider.value === slider.max ? 0 : Number(slider.value) + 1;
    show();
  });
  slider.addEventListener("input", () => {
    play(false);
    show();
  });
  show();
}

// Before and after: a divider, and a clip that loops.
for (const viewer of all(".viewer")) {
  const style = viewer.style;
  const divide = viewer.querySelector(".divide");
  const frame = viewer.querySelector(".frame");
  divide.addEventListener("input", () => style.setProperty("--at", `${divide.value}%`));
  for (const select of all(".side", viewer)) {
    select.addEventListener("change", () => {
      const side = select.dataset.side;
      for (const layer of all(".layer", viewer)) layer.classList.toggle(side, layer.dataset.layer === select.value);
      viewer.querySelector(`.tag.${side}`).textContent = select.value;
      const names = all(".tag", viewer).map((tag) => tag.textContent);
      divide.setAttribute("aria-label", `Divider between ${names.join(" and ")}`);
    });
  }
  if (!frame) continue;
  const move = () => style.setProperty("--frame", frame.value);
  const play = playable(viewer.querySelector(".play"), Number(viewer.dataset.rate), () => {
    frame.value = frame.value === frame.max ? 0 : Number(frame.value) + 1;
    move();
  });
  frame.addEventListener("input", () => {
    play(false);
    move();
  });
  play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}

// Nothing stays folded on paper.
let folded = [];
addEventListener("beforeprint", () => {
  folded = all("details:not([open])");
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of folded) each.open = false;
});
