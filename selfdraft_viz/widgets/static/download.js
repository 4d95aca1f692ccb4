// Asks the kernel for a file and saves it as the browser saves downloads.
function render({ model, el }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "jupyter-button widget-button sv-download";
  button.textContent = model.get("label");
  button.title = model.get("help");
  el.append(button);
  let asked = false; // of several views only the one that was pressed saves
  button.addEventListener("click", () => { asked = true; model.send({ type: "wanted" }); });
  function receive(message, buffers) {
    if (message.type !== "file" || !asked) return;
    asked = false;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([buffers[0]]));
    link.download = message.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  model.on("msg:custom", receive);
  return () => model.off("msg:custom", receive);
}
export default { render };
