// Draws the plots in file previews: `.plot[data-figure]` names a file with a plotly figure. plotly.js (5 MB) is fetched
// with the first plot, a plot is drawn when it comes near the screen, and what leaves the page is freed.
(() => {
  "use strict";
  const LIBRARY = "onellm/plotly.min.js";
  const GREY = "#8a8f98"; // plots.py writes its words in this grey; here they get the page's own colour
  const KEEP_MS = 5000;
  const CONFIG = { displayModeBar: false, scrollZoom: false }; // wheels and fingers scroll the page
  const known = new WeakSet();
  const drawn = new Map(); // url -> the last plot drawn of it

  let loading;
  const library = () => (loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = LIBRARY;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { loading = undefined; reject(new Error(`${LIBRARY} did not load`)); };
    document.head.append(script);
  }));

  const canvasOf = (plot) => plot.querySelector(".canvas");

  /** Draw, or draw anew in other colours; how it was turned and zoomed stays. */
  const draw = async (plot) => {
    try {
      plot.source ??= fetch(plot.dataset.figure).then((answer) => {
        if (!answer.ok) throw new Error(`${answer.status} ${plot.dataset.figure}`);
        return answer.text();
      });
      const [Plotly, text] = await Promise.all([library(), plot.source]);
      const canvas = canvasOf(plot);
      // the variable, not the colour: that may still be on its way from light to dark
      const ink = getComputedStyle(canvas).getPropertyValue("--body-text-color").trim() || GREY;
      const { data, layout } = JSON.parse(text.replaceAll(GREY, ink));
      plot.solid = Boolean(layout.scene);
      if (plot.solid && !document.createElement("canvas").getContext("webgl")) return tell(plot, plot.dataset.webgl);
      if (plot.solid && plot.camera) layout.scene.camera = plot.camera;
      if (!plot.solid && matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
      plot.steps = layout.sliders?.[0].steps; // the slider below the plot is the browser's own
      delete layout.sliders;
      delete layout.height; // the canvas has it
      layout.uirevision = "keep";
      await Plotly.react(canvas, data, layout, CONFIG);
      slide(plot);
      if (plot.solid) canvas.tabIndex = 0;
      plot.dataset.state = "drawn";
      drawn.set(plot.dataset.figure, plot);
      sizes.observe(canvas);
    } catch (error) {
      console.warn("no plot:", error);
      tell(plot, plot.dataset.failed);
    }
  };

  const tell = (plot, words) => {
    plot.dataset.state = "failed";
    plot.replaceChildren(Object.assign(document.createElement("p"), { className: "hint", textContent: words }));
  };

  /** Free what a plot holds; browsers allow few WebGL contexts at a time. */
  const release = (plot) => {
    if (plot.dataset.state !== "drawn") return;
    plot.camera = canvasOf(plot).layout.scene?.camera;
    sizes.unobserve(canvasOf(plot));
    window.Plotly.purge(canvasOf(plot));
    delete plot.dataset.state;
  };

  const nearness = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting && !target.dataset.state) {
        target.dataset.state = "drawing";
        draw(target);
      } else if (!isIntersecting && target.solid) release(target);
    }
  }, { rootMargin: "400px" });

  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) if (target.isConnected && target.offsetWidth) window.Plotly.Plots.resize(target);
  });

  /** Take in a plot that is new on the page. Gradio may make a message's elements anew: a plot drawn before is kept. */
  const meet = (plot) => {
    known.add(plot);
    const before = drawn.get(plot.dataset.figure);
    if (before && before !== plot && !before.isConnected) plot.replaceWith(before);
    else nearness.observe(plot);
  };

  const tidy = (url, plot) => {
    if (plot.isConnected) return;
    nearness.unobserve(plot);
    known.delete(plot); // should it come back
    release(plot);
    if (drawn.get(url) === plot) drawn.delete(url);
  };

  new MutationObserver(() => {
    for (const plot of [...document.getElementsByClassName("plot")]) {
      if (plot.dataset.figure && !known.has(plot)) meet(plot);
    }
    for (const [url, plot] of drawn) if (!plot.isConnected) setTimeout(tidy, KEEP_MS, url, plot);
  }).observe(document, { childList: true, subtree: true });

  // ---- light and dark ---------------------------------------------------------------------------------------------

  let dark;
  const isDark = () => document.body.classList.contains("dark");
  const follow = () => {
    dark = isDark();
    new MutationObserver(() => {
      if (dark === isDark()) return;
      dark = isDark();
      for (const plot of drawn.values()) if (plot.dataset.state === "drawn") draw(plot);
    }).observe(document.body, { attributeFilter: ["class"] });
  };
  if (document.body) follow();
  else document.addEventListener("DOMContentLoaded", follow);

  // ---- sliders and keys -------------------------------------------------------------------------------------------

  const slide = (plot) => {
    const input = plot.querySelector(".slider input");
    if (input && plot.steps) window.Plotly.restyle(canvasOf(plot), plot.steps[input.value].args[0]);
  };

  document.addEventListener("input", (event) => {
    const plot = event.target.closest?.(".plot");
    if (plot?.dataset.state === "drawn") slide(plot);
  });

  const TURN = Math.PI / 24;
  const MOVES = {
    ArrowLeft: [-TURN, 0, 1], ArrowRight: [TURN, 0, 1], ArrowUp: [0, TURN, 1], ArrowDown: [0, -TURN, 1],
    "+": [0, 0, 0.9], "=": [0, 0, 0.9], "-": [0, 0, 1.1],
  };

  document.addEventListener("keydown", (event) => {
    const move = MOVES[event.key], canvas = event.target;
    if (!move || !canvas.matches?.(".plot .canvas") || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const { eye, ...camera } = canvas.layout.scene.camera;
    const radius = Math.hypot(eye.x, eye.y, eye.z) * move[2];
    const angle = Math.atan2(eye.y, eye.x) + move[0];
    const height = Math.min(1.5, Math.max(-1.5, Math.asin(eye.z / Math.hypot(eye.x, eye.y, eye.z)) + move[1]));
    const across = radius * Math.cos(height);
    const moved = { x: across * Math.cos(angle), y: across * Math.sin(angle), z: radius * Math.sin(height) };
    window.Plotly.relayout(canvas, { "scene.camera": { ...camera, eye: moved } });
  });

  // ---- players ----------------------------------------------------------------------------------------------------

  // Which formats play differs between browsers, and none says so beforehand. Errors of media do not bubble.
  document.addEventListener("error", (event) => {
    const player = event.target;
    if (!player.matches?.(".player[data-failed]")) return;
    player.replaceWith(Object.assign(document.createElement("p"), { className: "hint", textContent: player.dataset.failed }));
  }, true);
})();
