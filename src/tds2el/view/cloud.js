
// Points in reciprocal space: drag turns, the wheel or two fingers zoom, the arrow keys turn, + and - zoom.
for (const figure of document.querySelectorAll(".cloud")) {
  const cloud = JSON.parse(document.getElementById("cloud").textContent);
  const canvas = figure.querySelector("canvas");
  const label = figure.querySelector("output");
  const context = canvas.getContext("2d");
  const control = name => document.querySelector(`.controls [name="${name}"]`);
  const n = cloud.x.length;
  const reach = Math.max(1e-9, largest(cloud.x), largest(cloud.y), largest(cloud.z));
  const colours = { accepted: "#009e73", other: "#d55e00", unknown: "#0072b2", axes: "#1b2127" };
  // viridis, from small residuals to large ones
  const scale = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725"];
  const px = new Float64Array(n), py = new Float64Array(n), depth = new Float64Array(n);
  let matrix = turned(identity(), -1.1, 0.5), zoom = 1, ratio = 1, width = 1, height = 1, waiting = false, hovered = -1;

  function largest(values) {
    let most = 0;
    for (const value of values) most = Math.max(most, Math.abs(value));
    return most;
  }
  function identity() { return [[1, 0, 0], [0, 1, 0], [0, 0, 1]]; }
  function product(a, b) { return a.map(row => [0, 1, 2].map(j => row[0] * b[0][j] + row[1] * b[1][j] + row[2] * b[2][j])); }
  function turned(m, down, right) {
    const [c, s, k, t] = [Math.cos(down), Math.sin(down), Math.cos(right), Math.sin(right)];
    return product(product([[1, 0, 0], [0, c, -s], [0, s, c]], [[k, 0, t], [0, 1, 0], [-t, 0, k]]), m);
  }
  function along(axis) {
    // The axis towards the viewer, another one upwards as far as it can be.
    const length = v => Math.hypot(...v), unit = v => v.map(x => x / length(v));
    const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    const vector = k => (cloud.axes ? cloud.axes[k] : identity()[k]);
    const z = unit(vector(axis)), x = unit(cross(vector((axis + 2) % 3), z));
    return [x, cross(z, x), z];
  }
  function visible(i) {
    if (!cloud.accepted) return true;
    return cloud.accepted[i] ? control("accepted").checked : control("other").checked;
  }
  function colour(i) {
    if (!cloud.accepted) return colours.unknown;
    if (control("colour").value === "residual") {
      const r = cloud.residual[i];
      return r === null ? "#b8c0c8" : scale[Math.min(scale.length - 1, Math.floor(scale.length * r / cloud.largest))];
    }
    return cloud.accepted[i] ? colours.accepted : colours.other;
  }
  function project(x, y, z) {
    const size = 0.45 * Math.min(width, height) * zoom / reach;
    return [
      width / 2 + size * (matrix[0][0] * x + matrix[0][1] * y + matrix[0][2] * z),
      height / 2 - size * (matrix[1][0] * x + matrix[1][1] * y + matrix[1][2] * z),
      matrix[2][0] * x + matrix[2][1] * y + matrix[2][2] * z,
    ];
  }
  function draw() {
    waiting = false;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    // Few strokes instead of thousands: points of one colour and one shade of depth share a path.
    const shades = 6, paths = new Map();
    for (let i = 0; i < n; i++) {
      if (!visible(i)) { depth[i] = NaN; continue; }
      [px[i], py[i], depth[i]] = project(cloud.x[i], cloud.y[i], cloud.z[i]);
      const shade = Math.max(0, Math.min(shades - 1, Math.floor(shades * (depth[i] / (1.8 * reach) + 0.5))));
      const key = `${shade}${colour(i)}`;
      if (!paths.has(key)) paths.set(key, []);
      paths.get(key).push(i);
    }
    const grow = Math.min(2.5, Math.sqrt(zoom)) * (n > 20000 ? 0.7 : 1);
    for (const key of [...paths.keys()].sort()) {
      const shade = Number(key[0]), radius = grow * (1.5 + 0.35 * shade);
      context.globalAlpha = 0.35 + 0.65 * (shade + 1) / shades;
      context.fillStyle = key.slice(1);
      context.beginPath();
      for (const i of paths.get(key)) {
        context.moveTo(px[i] + radius, py[i]);
        context.arc(px[i], py[i], radius, 0, 7);
      }
      context.fill();
    }
    context.globalAlpha = 1;
    if (control("axes").checked) drawAxes();
    if (hovered >= 0) {
      context.strokeStyle = colours.axes;
      context.lineWidth = 1.5;
      context.beginPath();
      context.arc(px[hovered], py[hovered], 6, 0, 7);
      context.stroke();
    }
    figure.dataset.drawn = Number(figure.dataset.drawn || 0) + 1;
  }
  function drawAxes() {
    const axes = cloud.axes || identity().map(row => row.map(x => 0.5 * reach * x));
    const names = cloud.axes ? ["a*", "b*", "c*"] : ["x", "y", "z"];
    const [x0, y0] = project(0, 0, 0);
    context.strokeStyle = context.fillStyle = colours.axes;
    context.lineWidth = 1.6;
    context.font = "italic 600 14px system-ui, sans-serif";
    axes.forEach((axis, k) => {
      const [x, y] = project(...axis), length = Math.hypot(x - x0, y - y0);
      const [ux, uy] = length ? [(x - x0) / length, (y - y0) / length] : [0, 0];
      context.beginPath();
      context.moveTo(x0, y0);
      context.lineTo(x, y);
      if (length > 12) {
        context.moveTo(x - 8 * ux + 4 * uy, y - 8 * uy - 4 * ux);
        context.lineTo(x, y);
        context.lineTo(x - 8 * ux - 4 * uy, y - 8 * uy + 4 * ux);
      }
      context.stroke();
      if (length < 6) return;  // towards the viewer
      context.lineWidth = 3;
      context.strokeStyle = "#fff";
      context.strokeText(names[k], x + 7 * ux + 3, y + 7 * uy + 5);
      context.fillText(names[k], x + 7 * ux + 3, y + 7 * uy + 5);
      context.lineWidth = 1.6;
      context.strokeStyle = colours.axes;
    });
  }
  function legend() {
    const shown = control("colour") && control("colour").value === "residual";
    for (const element of document.querySelectorAll(".controls .legend")) element.hidden = !shown;
  }
  function redraw() {
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  }
  function describe(i) {
    const lines = [];
    if (cloud.hkl) lines.push(cloud.hkl[i].some(x => x) ? `hkl ${cloud.hkl[i].join(" ").replaceAll("-", "−")}` : "no hkl");
    lines.push(`|Q| ${Math.hypot(cloud.x[i], cloud.y[i], cloud.z[i]).toFixed(4)} Å⁻¹, counts ${Math.round(cloud.counts[i])}`);
    if (cloud.accepted) lines.push(cloud.accepted[i] ? "accepted" : "not accepted");
    if (cloud.residual && cloud.residual[i] !== null) lines.push(`residual ${cloud.residual[i].toFixed(2)} pixels`);
    return lines.join("\n");
  }
  function hover(event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = -1, nearest = 9;
    for (let i = 0; i < n; i++) {
      const distance = Math.hypot(px[i] - x, py[i] - y);
      // Of two under the pointer, the one in front.
      if (distance < nearest - 1 || (distance < nearest + 1 && distance < 9 && best >= 0 && depth[i] > depth[best])) {
        if (Number.isNaN(depth[i])) continue;
        best = i;
        nearest = distance;
      }
    }
    if (best !== hovered) redraw();
    hovered = best;
    label.style.display = best < 0 ? "none" : "block";
    if (best < 0) return;
    label.textContent = describe(best);
    const left = px[best] + 14 + label.offsetWidth > width ? px[best] - 14 - label.offsetWidth : px[best] + 14;
    label.style.transform = `translate(${Math.max(0, left)}px, ${Math.max(0, Math.min(height - label.offsetHeight, py[best] + 8))}px)`;
  }
  function resize() {
    const box = canvas.getBoundingClientRect();
    ratio = devicePixelRatio || 1;
    [width, height] = [Math.max(1, box.width), Math.max(1, box.height)];
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    redraw();
  }
  function zoomBy(factor) {
    zoom = Math.max(0.3, Math.min(60, zoom * factor));
    redraw();
  }
  function quiet() {
    hovered = -1;
    label.style.display = "none";
  }

  const fingers = new Map();
  canvas.addEventListener("pointerdown", event => {
    fingers.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    const before = fingers.get(event.pointerId);
    if (!before) return hover(event);
    if (fingers.size === 1) {
      matrix = turned(matrix, (event.clientY - before.clientY) / 180, (event.clientX - before.clientX) / 180);
    } else {
      const [other] = [...fingers.values()].filter(finger => finger.pointerId !== event.pointerId);
      const apart = finger => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
      zoomBy(apart(event) / Math.max(1, apart(before)));
    }
    fingers.set(event.pointerId, event);
    quiet();
    redraw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, event => fingers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => { quiet(); redraw(); });
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    quiet();
    zoomBy(Math.exp(-event.deltaY / 500));
  }, { passive: false });
  canvas.addEventListener("keydown", event => {
    const turns = { ArrowLeft: [0, -0.08], ArrowRight: [0, 0.08], ArrowUp: [-0.08, 0], ArrowDown: [0.08, 0] };
    if (turns[event.key]) matrix = turned(matrix, ...turns[event.key]);
    else if (event.key === "+" || event.key === "=") zoomBy(1.15);
    else if (event.key === "-") zoomBy(1 / 1.15);
    else return;
    event.preventDefault();
    quiet();
    redraw();
  });
  for (const input of document.querySelectorAll(".controls input, .controls select")) input.addEventListener("change", () => {
    quiet();
    legend();
    redraw();
  });
  for (const button of document.querySelectorAll(".controls button")) button.addEventListener("click", () => {
    const axis = ["along-0", "along-1", "along-2"].indexOf(button.name);
    matrix = axis < 0 ? turned(identity(), -1.1, 0.5) : along(axis);
    if (axis < 0) zoom = 1;
    quiet();
    redraw();
  });
  legend();
  new ResizeObserver(resize).observe(canvas);
  resize();
}
