// The text of a decode, token by token. Every piece of text enters the page through textContent: nothing is read as markup.

function span(className, text) {
  const node = document.createElement("span");
  node.className = className;
  node.textContent = text;
  return node;
}

// A word of the key that explains itself, to the mouse and to the keyboard.
function explained(node, words) {
  node.title = words;
  node.tabIndex = 0;
  node.setAttribute("aria-label", `${node.textContent}: ${words}`);
  return node;
}

function render({ model, el }) {
  const view = document.createElement("div");
  view.className = "sv-text";
  view.tabIndex = 0;
  view.setAttribute("role", "region");
  view.setAttribute("aria-label", "Generated text, coloured by exit depth");
  const committed = document.createElement("span");
  const tail = document.createElement("span"); // drafts of the running round, or those just thrown away
  view.append(committed, tail);
  const key = document.createElement("div");
  key.className = "sv-key";
  el.append(view, key);

  let palette = {};
  let count = 0;
  let follows = true; // the end stays in sight, unless somebody has scrolled up; known without asking for the layout
  let scrolling = false;
  view.addEventListener("scroll", () => { follows = view.scrollHeight - view.scrollTop - view.clientHeight < 48; }, { passive: true });

  function paint(node, depth) {
    const colours = palette[depth];
    if (colours) [node.style.backgroundColor, node.style.color] = colours;
  }

  function token([text, depth, kind, label, position]) {
    const node = span(`sv-token sv-${kind}`, text);
    node.title = label;
    node.dataset.depth = depth;
    node.dataset.position = position;
    paint(node, depth);
    return node;
  }

  function draft([text, depth, outcome, label]) {
    const node = span(outcome === "draft" ? "sv-token sv-draft" : `sv-token sv-away sv-${outcome}`, text);
    node.title = label;
    if (palette[depth]) node.style.setProperty("--sv-depth", palette[depth][0]);
    return node;
  }

  function drawKey(layers, numLayers, words) {
    key.replaceChildren();
    const scale = explained(span("", "exit depth "), words["exit depth"]);
    for (const layer of layers) {
      const swatch = span("sv-swatch", layer);
      paint(swatch, layer);
      scale.append(swatch);
    }
    scale.append(span("", ` of ${numLayers} layers`));
    key.append(scale);
    for (const [className, text] of [
      ["sv-first", "first"], ["sv-correction", "correction"], ["sv-bonus", "bonus"],
      ["sv-draft", "draft"], ["sv-away sv-rejected", "rejected"], ["sv-away sv-dropped", "dropped"],
    ]) key.append(explained(span(`sv-sample ${className}`, text), words[text]));
  }

  function reset(message) {
    palette = message.palette;
    count = 0;
    follows = true;
    view.dataset.tokens = 0;
    committed.replaceChildren(span("sv-prompt", message.prompt));
    if (message.hint) committed.append(span("sv-hint", message.hint));
    tail.replaceChildren();
    drawKey(message.layers, message.num_layers, message.words);
  }

  function patch(message) {
    if (message.from > count) return model.send({ type: "ready" }); // a patch was missed
    const fresh = message.tokens.slice(count - message.from);
    committed.append(...fresh.map(token));
    count += fresh.length;
    tail.replaceChildren(...message.drafts.map(draft));
    view.dataset.tokens = count;
    if (follows && !scrolling) {
      scrolling = true;
      requestAnimationFrame(() => { scrolling = false; view.scrollTop = view.scrollHeight; });
    }
  }

  function mark(position) {
    committed.querySelector(".sv-selected")?.classList.remove("sv-selected");
    const node = position === null ? null : at(position);
    if (node) {
      node.classList.add("sv-selected");
      const [top, bottom] = [node.offsetTop - view.offsetTop, node.offsetTop - view.offsetTop + node.offsetHeight];
      if (top < view.scrollTop || bottom > view.scrollTop + view.clientHeight) view.scrollTop = top - view.clientHeight / 2;
    }
  }

  const at = (position) => committed.querySelector(`[data-position="${position}"]`);
  const select = (position) => model.send({ type: "select", position: Number(position) });
  view.addEventListener("click", (event) => {
    const position = event.target.dataset?.position;
    if (position !== undefined) select(position);
  });
  view.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const chosen = committed.querySelector(".sv-selected");
    const next = chosen ? at(Number(chosen.dataset.position) + step) : committed.querySelector("[data-position]");
    if (next) select(next.dataset.position);
    event.preventDefault();
  });
  let dwelling;
  view.addEventListener("mouseover", (event) => {
    clearTimeout(dwelling);
    const position = event.target.dataset?.position;
    if (position !== undefined) dwelling = setTimeout(() => model.send({ type: "describe", position: Number(position) }), 200);
  });

  function receive(message) {
    if (message.type === "reset") reset(message);
    if (message.type === "selected") mark(message.position);
    if (message.type === "label") { const node = at(message.position); if (node) node.title = message.label; }
    if (message.tokens) patch(message);
  }

  model.on("msg:custom", receive);
  model.send({ type: "ready" });
  return () => model.off("msg:custom", receive);
}

export default { render };
