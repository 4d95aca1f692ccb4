// Figures of a run, what it is doing, and what went wrong, in words. All text enters through textContent.
function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "sv-readout";
  const tiles = document.createElement("div");
  tiles.className = "sv-tiles";
  const status = document.createElement("div");
  status.className = "sv-status";
  status.setAttribute("role", "status");
  const error = document.createElement("div");
  error.className = "sv-error";
  error.setAttribute("role", "alert");
  root.append(error, tiles, status);
  el.append(root);

  const cells = new Map();
  function drawTiles() {
    for (const [name, value, unit, help] of model.get("tiles")) {
      if (!cells.has(name)) {
        const tile = document.createElement("div");
        tile.className = "sv-tile";
        const term = document.createElement("div");
        const number = document.createElement("div");
        const text = document.createElement("span");
        const small = document.createElement("small");
        term.className = "sv-name";
        number.className = "sv-value";
        term.textContent = name;
        number.append(text, small);
        tile.append(term, number);
        tiles.append(tile);
        cells.set(name, [tile, text, small]);
      }
      const [tile, text, small] = cells.get(name);
      tile.title = help;
      text.textContent = value;
      small.textContent = unit;
    }
  }
  function drawStatus() {
    status.replaceChildren(document.createTextNode(model.get("status")));
    if (model.get("verdict")) {
      const verdict = document.createElement("span");
      verdict.className = "sv-verdict";
      verdict.textContent = ` ${model.get("verdict")}`;
      status.append(verdict);
    }
  }
  const drawError = () => { error.textContent = model.get("error"); };
  drawTiles(); drawStatus(); drawError();
  model.on("change:tiles", drawTiles);
  model.on("change:status", drawStatus);
  model.on("change:verdict", drawStatus);
  model.on("change:error", drawError);
}

export default { render };
