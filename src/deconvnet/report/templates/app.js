"use strict";
// Tables that sort, the browser of val's images, and where this run was made. No library, no network.

function sortable(table) {
  const body = table.tBodies[0];
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key !== undefined ? Number(cell.dataset.key) : cell.textContent.trim();
  };
  table.querySelectorAll("thead button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const down = head.getAttribute("aria-sort") === "descending";
      table.querySelectorAll("thead th").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "ascending" : "descending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a, column), key(b, column)];
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return down ? order : -order;
      });
      body.append(...rows);
    });
  });
}

function tile(title, score, source, row, rows, ratio) {
  const figure = document.createElement("figure");
  const picture = document.createElement("div");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", title);
  picture.style.backgroundImage = `url("${source}")`;
  picture.style.aspectRatio = ratio;
  picture.style.backgroundPositionY = rows > 1 ? `${(100 * row) / (rows - 1)}%` : "0";
  const caption = document.createElement("figcaption");
  caption.textContent = score === null ? title : `${title}: ${score.toFixed(0)} %`;
  figure.append(picture, caption);
  return figure;
}

function browse({ images, methods, steps }) {
  const [select, order, what, slider, count, tiles] = ["image", "order", "what", "proposals", "count", "tiles"].map((id) => document.getElementById(id));
  const gaps = {
    deconvnet: (i) => i.methods.deconvnet - i.methods.fcn8s,
    fcn8s: (i) => i.methods.fcn8s - i.methods.deconvnet,
    ensemble: (i) => i.methods.edeconvnet - Math.max(i.methods.fcn8s, i.methods.deconvnet),
  };
  let shown = [...images];

  function list() {
    shown = [...images];
    if (gaps[order.value]) shown.sort((a, b) => gaps[order.value](b) - gaps[order.value](a));
    select.replaceChildren(...shown.map((image, i) => new Option(image.name, i)));
    show();
  }
  function show() {
    const image = shown[Number(select.value) || 0];
    const step = Number(slider.value);
    const file = `${encodeURIComponent(image.name)}.png`; // an id may hold #, ? or "
    const rows = methods.length + 1;
    const errors = what.value === "errors"; // in a picture of its own, without the ground truth
    for (const kind of ["labels", "errors"]) document.getElementById(`legend-${kind}`).hidden = kind !== what.value;
    const method = ([key, title], i) => errors
      ? tile(title, image.methods[key], `images/val/errors/${encodeURIComponent(image.name)}.jpg`, i, methods.length, image.ratio)
      : tile(title, image.methods[key], `images/val/${file}`, i + 1, rows, image.ratio);
    count.textContent = steps[step];
    const proposals = steps[step] === 1 ? "1 proposal" : `${steps[step]} proposals`;
    slider.setAttribute("aria-valuetext", proposals);
    tiles.replaceChildren(
      tile("image", null, `images/val/${encodeURIComponent(image.name)}.jpg`, 0, 1, image.ratio),
      tile("ground truth", null, `images/val/${file}`, 0, rows, image.ratio),
      ...methods.map(method),
      tile(`DeconvNet with ${proposals}`, image.steps[step], `images/val/steps/${file}`, step, steps.length, image.ratio),
    );
  }
  // The address names the image that a reader chose, so that it can be pointed at: index.html#image=val_00001.
  const choose = (index) => {
    select.value = String(index);
    show();
    history.replaceState(null, "", `#image=${encodeURIComponent(shown[index].name)}`);
  };
  const move = (by) => choose((Number(select.value) + by + shown.length) % shown.length);
  const follow = () => {
    const [, name] = location.hash.match(/^#image=(.+)$/) || [];
    const index = name ? shown.findIndex((image) => image.name === decodeURIComponent(name)) : -1;
    if (index < 0) return;
    select.value = String(index);
    show();
    document.getElementById("browser").scrollIntoView();
  };
  document.getElementById("previous").addEventListener("click", () => move(-1));
  document.getElementById("next").addEventListener("click", () => move(1));
  select.addEventListener("change", () => choose(Number(select.value)));
  window.addEventListener("hashchange", follow);
  order.addEventListener("change", list);
  what.addEventListener("change", show);
  slider.addEventListener("input", show);
  if (images.length) list();
  follow();
}

function provenance(facts) {
  const list = document.getElementById("machine");
  for (const [name, value] of Object.entries(facts || { commit: "unknown: the pipeline has not written it yet" })) {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name.replaceAll("_", " ");
    const several = typeof value === "object" && value !== null;
    const parts = Array.isArray(value) ? value : Object.entries(value ?? {}).map(([key, v]) => `${key} ${v}`);
    text.textContent = several ? parts.join(", ") || "none" : value ?? "unknown";
    list.append(term, text);
  }
}

document.querySelectorAll("table.sortable").forEach(sortable);
browse(window.BROWSER);
provenance(window.PROVENANCE);
