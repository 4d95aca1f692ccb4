// One plotly figure, fed by patches: Python sends the tail of each column that has changed, and this side keeps the rest.
// Drawing never queues up: patches that arrive while a frame is being drawn are drawn together in the next one.

const TYPES = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array, int32: Int32Array, float32: Float32Array, float64: Float64Array };

// plotly.js itself comes over the wire once a page, however many plots and explorers there are.
function plotly(model) {
  const page = globalThis;
  const ask = () => new Promise((resolve) => {
    const receive = async (message) => {
      if (message.type !== "plotly") return;
      model.off("msg:custom", receive);
      const wrapped = `const module = { exports: {} };\n(function (module, exports, define) {\n${message.source}\n})(module, module.exports, undefined);\nexport default module.exports;`;
      const address = URL.createObjectURL(new Blob([wrapped], { type: "text/javascript" }));
      const loaded = await import(/* webpackIgnore: true */ /* @vite-ignore */ address);
      URL.revokeObjectURL(address);
      resolve(loaded.default);
    };
    model.on("msg:custom", receive);
    model.send({ type: "plotly" });
  });
  page.__selfdraft_plotly ??= ask();
  const late = new Promise((resolve) => setTimeout(resolve, 15000)).then(ask); // who asked first may have gone since
  return Promise.race([page.__selfdraft_plotly, late]);
}

// The plots of a page draw one at a time, and leave the page half as long as they took to do everything else in: messages
// that come in meanwhile (the text, the figures, the next patches) are taken at once and not when the plots have caught up.
// After a moment without drawing they need not at once, so that the few plots of one moved slider follow it together.
const SHARE_LEFT = 0.5;
const MOMENT = 150; // ms
const SPARED = 60; // ms, at most
const page = (globalThis.__selfdraft_page ??= { spared: SPARED, drawn: 0 });
function turn(work) {
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  const mine = (globalThis.__selfdraft_turn ?? Promise.resolve()).then(async () => {
    await new Promise((resolve) => { requestAnimationFrame(resolve); setTimeout(resolve, 200); }); // no frames in a hidden tab
    const begun = performance.now();
    if (begun - page.drawn > MOMENT) page.spared = SPARED;
    try { await work(); } finally {
      page.drawn = performance.now();
      const due = SHARE_LEFT * (page.drawn - begun);
      const spared = Math.min(due, page.spared);
      page.spared -= spared;
      if (due > spared) await pause(due - spared);
    }
  });
  globalThis.__selfdraft_turn = mine.catch(() => {});
  return mine;
}

function assign(target, path, value) {
  const names = path.split(".");
  const last = names.pop();
  for (const name of names) target = target[name] ??= {};
  target[last] = value;
}

function grown(old, start, type, buffer) {
  const tail = new type(buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength));
  if (!start) return tail;
  const whole = new type(start + tail.length);
  whole.set(old.subarray(0, start));
  whole.set(tail, start);
  return whole;
}

function render({ model, el }) {
  const plot = document.createElement("div");
  plot.className = "sv-plot";
  plot.style.height = `${model.get("height")}px`;
  plot.setAttribute("role", "img");
  plot.dataset.frames = 0;
  el.append(plot);
  const describe = () => plot.setAttribute("aria-label", model.get("description"));
  describe();
  model.on("change:description", describe);

  let library = null;
  let figure = null; // {data, layout, config}
  let columns = []; // a trace: property path -> typed array
  let revision = 0;
  let drawing = false;
  let dirty = false;
  let gone = false;
  let seen = true; // a plot out of sight is drawn when it comes into sight, not before

  // The camera of the figure saves SVG; this one the same as pixels.
  const png = () => ({
    name: "Download plot as a PNG", icon: library.Icons.disk,
    click: (shown) => library.downloadImage(shown, { format: "png", scale: 2, filename: "selfdraft" }),
  });

  async function draw() {
    if (!library || !figure || gone || !seen) return;
    if (drawing) { dirty = true; return; }
    drawing = true;
    do {
      dirty = false;
      await turn(async () => {
        if (gone) return;
        revision += 1;
        const data = figure.data.map((trace) => ({ ...trace }));
        await library.react(plot, data, { ...figure.layout, datarevision: revision }, { ...figure.config, modeBarButtonsToAdd: [png()] });
        plot.dataset.frames = revision;
      });
    } while (dirty && !gone && seen);
    drawing = false;
  }

  // Points of some traces to where they are now, without drawing axes, legend and the other traces again.
  async function move(traces) {
    if (!library || !plot._fullLayout || drawing || !seen) return draw();
    const data = traces.map((trace) => ({ x: figure.data[trace].x, y: figure.data[trace].y }));
    const at_once = { mode: "immediate", transition: { duration: 0 }, frame: { duration: 0, redraw: false } };
    await library.animate(plot, { data, traces }, at_once).catch(draw); // one that the next overtakes
    revision += 1;
    plot.dataset.frames = revision;
  }

  function receive(message, buffers) {
    if (message.type === "figure") {
      if (message.figure) {
        figure = message.figure;
        columns = figure.data.map(() => ({}));
      }
      if (!figure) return model.send({ type: "ready" });
    } else if (message.type !== "patch" || !figure) {
      return;
    }
    for (const { trace, path, start, dtype, buffer, values, value } of message.traces ?? []) {
      if (dtype || values) {
        const old = columns[trace][path];
        if (start > (old?.length ?? 0)) return model.send({ type: "ready" }); // a patch was missed
        columns[trace][path] = dtype ? grown(old, start, TYPES[dtype], buffers[buffer]) : [...(old ?? []).slice(0, start), ...values];
        assign(figure.data[trace], path, columns[trace][path]);
      } else {
        assign(figure.data[trace], path, value);
      }
    }
    for (const [path, value] of Object.entries(message.layout ?? {})) assign(figure.layout, path, value);
    if (message.axes_stay) move([...new Set(message.traces.map(({ trace }) => trace))]);
    else draw();
  }

  model.on("msg:custom", receive);
  model.send({ type: "ready" });
  plotly(model).then((loaded) => { library = loaded; draw(); }).then(() => {
    const point = (event) => event.points?.[0];
    const listen = () => plot.on?.("plotly_click", (event) => {
      const { x, y, curveNumber } = point(event) ?? {};
      if (x !== undefined) model.send({ type: "click", x, y, trace: curveNumber });
    });
    const wait = setInterval(() => { if (gone || plot.on) { clearInterval(wait); if (!gone) listen(); } }, 100);
  });
  const watcher = new ResizeObserver(() => { if (library && plot._fullLayout) library.Plots.resize(plot); });
  watcher.observe(el);
  const sight = new IntersectionObserver((entries) => { seen = entries[entries.length - 1].isIntersecting; if (seen) draw(); }, { rootMargin: "100px" });
  sight.observe(plot);

  return () => {
    gone = true;
    watcher.disconnect();
    sight.disconnect();
    model.off("msg:custom", receive);
    if (library) library.purge(plot);
  };
}

export default { render };
