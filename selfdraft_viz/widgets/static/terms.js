// A line of terms; each explains itself in a bubble, for the mouse and for the keyboard. All text enters through textContent.
function render({ model, el }) {
  const line = document.createElement("div");
  line.className = "sv-terms";
  line.setAttribute("role", "list");
  line.setAttribute("aria-label", "words used here");
  const bubble = document.createElement("div");
  bubble.className = "sv-bubble";
  bubble.setAttribute("role", "tooltip");
  bubble.hidden = true;
  el.append(line);
  document.body.append(bubble);

  function show(node, text) {
    bubble.textContent = text;
    bubble.hidden = false;
    const place = node.getBoundingClientRect();
    const width = Math.min(340, window.innerWidth - 24);
    bubble.style.width = `${width}px`;
    bubble.style.left = `${Math.max(12, Math.min(place.left, window.innerWidth - width - 12))}px`;
    const below = place.bottom + 6;
    const fits = below + bubble.offsetHeight < window.innerHeight;
    bubble.style.top = `${fits ? below : place.top - bubble.offsetHeight - 6}px`;
  }
  const hide = () => { bubble.hidden = true; };

  function draw() {
    line.replaceChildren();
    for (const [term, explanation] of model.get("terms")) {
      const item = document.createElement("span");
      item.setAttribute("role", "listitem");
      const word = document.createElement("button");
      word.type = "button";
      word.className = "sv-term";
      word.textContent = term;
      word.setAttribute("aria-label", `${term}: ${explanation}`);
      word.addEventListener("mouseenter", () => show(word, explanation));
      word.addEventListener("focus", () => show(word, explanation));
      word.addEventListener("click", () => show(word, explanation));
      word.addEventListener("mouseleave", hide);
      word.addEventListener("blur", hide);
      word.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
      item.append(word);
      line.append(item);
    }
  }
  draw();
  model.on("change:terms", draw);
  window.addEventListener("scroll", hide, true);
  return () => { bubble.remove(); window.removeEventListener("scroll", hide, true); };
}
export default { render };
