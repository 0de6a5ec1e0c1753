// One sound at a time, and the original beside it; the keys that pages share.
// Gives: player, listenToKeys.
//
// A feature and the original run together, with one of them muted, so that switching between them
// neither waits nor loses the place. The louder of the two is turned down to the other.

const player = (() => {
  const master = new Audio();
  const other = new Audio();
  master.preload = other.preload = "none";
  let playing = null; // what master holds: { name, sound, rms, seconds, original, pictures }
  let heads = [];
  let frame = 0; // the next call of step
  const listeners = [];

  function tell() {
    for (const listener of listeners) listener();
  }

  function showHeads() {
    for (const head of heads) head.remove();
    heads = (playing?.pictures() ?? []).map((picture) => {
      const head = document.createElement("span");
      head.className = "playhead";
      (picture.querySelector(".axes") ?? picture).append(head);
      return head;
    });
  }

  /** The length of the sound; until it is fetched, the length that the page gives. */
  function length() {
    return master.duration || playing?.seconds || 1;
  }

  function step() {
    const share = Math.min(1, master.currentTime / length());
    for (const head of heads) {
      head.style.left = `${100 * share}%`;
      head.hidden = share === 0;
    }
    // Each runs on its own clock; in a loop or a long clip they may drift apart.
    if (!other.paused && Math.abs(other.currentTime - master.currentTime) > 0.08) {
      other.currentTime = master.currentTime;
    }
    for (const listener of ticks) listener(master.currentTime, share);
    cancelAnimationFrame(frame);
    if (!master.paused) frame = requestAnimationFrame(step);
  }
  const ticks = [];
  const enders = [];

  async function start() {
    const wanted = playing;
    if (!wanted.original) {
      other.currentTime = master.currentTime;
      other.play().catch(() => {}); // the original may be missing; the feature still plays
    }
    try {
      await master.play();
      step();
    } catch (error) {
      if (error.name !== "AbortError") wanted.failed = true;
    }
    tell();
  }

  function pause() {
    master.pause();
    other.pause();
    tell();
  }

  for (const event of ["ended", "pause", "error"]) {
    master.addEventListener(event, () => {
      if (master.ended) other.pause();
      if (event === "ended") for (const listener of enders) listener();
      if (event === "error" && playing) playing.failed = true;
      tell();
    });
  }

  return {
    get playing() { return playing; },
    get paused() { return master.paused; },
    get loop() { return master.loop; },
    get hearsOriginal() { return Boolean(playing) && (playing.original || master.muted); },
    onChange: (listener) => listeners.push(listener),
    onTick: (listener) => ticks.push(listener),
    onEnd: (listener) => enders.push(listener),
    /** To be called when the pictures of the sound that is held have changed. */
    refreshHeads() { showHeads(); step(); tell(); },

    /** Hold a sound, ready to play from its start, unless it is held already. Nothing is
     *  fetched before it plays. `original` is { sound, rms } of the song it belongs to. */
    hold(sound, original) {
      if (playing?.sound === sound.sound && !playing.failed) return;
      pause();
      playing = sound;
      master.src = sound.sound;
      const matched = !sound.original && sound.rms > 0 && original.rms > 0;
      master.volume = matched ? Math.min(1, original.rms / sound.rms) : 1;
      other.volume = matched ? Math.min(1, sound.rms / original.rms) : 1;
      if (!sound.original && other.src !== new URL(original.sound, location.href).href) {
        other.src = original.sound;
      }
      master.muted = false;
      other.muted = true;
      showHeads();
      step(); // to show the time of this sound instead of that of the one before
      tell();
    },
    /** Another sound of the same feature, at the same place; it goes on if that played. */
    change(sound, original) {
      const { currentTime, paused, muted } = master;
      this.hold(sound, original);
      this.seek(currentTime / length());
      [master.muted, other.muted] = [muted, !muted];
      if (!paused) start(); else tell();
    },
    toggle() {
      if (!playing) return;
      if (master.paused) start(); else pause();
    },
    /** Hear the original instead of the feature, or the feature again. */
    swap() {
      if (!playing || playing.original) return;
      master.muted = !master.muted;
      other.muted = !other.muted;
      if (master.paused) start(); else tell();
    },
    setLoop(on) { master.loop = on; tell(); },
    seek(share) {
      if (!playing) return;
      master.currentTime = share * length();
      if (!playing.original) other.currentTime = master.currentTime;
      step();
    },
  };
})();

// The bar at the bottom of the page.
{
  const get = (id) => document.getElementById(id);
  get("toggle").addEventListener("click", () => player.toggle());
  get("ab").addEventListener("click", () => player.swap());
  get("loop").addEventListener("click", () => player.setLoop(!player.loop));
  get("seek").addEventListener("input", (event) => player.seek(Number(event.target.value)));
  player.onTick((time, share) => {
    get("time").textContent = `${time.toFixed(1)} s`;
    get("seek").value = share;
    get("seek").setAttribute("aria-valuetext", `${time.toFixed(1)} seconds`);
  });
  player.onChange(() => {
    const { playing } = player;
    for (const button of document.querySelectorAll('.play[aria-pressed="true"]')) button.removeAttribute("aria-pressed");
    if (playing && !player.paused) playing.pictures()[0]?.setAttribute("aria-pressed", "true");
    get("toggle").disabled = get("seek").disabled = !playing;
    get("toggle").textContent = player.paused ? "▶" : "❚❚";
    get("ab").disabled = !playing || Boolean(playing.original);
    get("ab").setAttribute("aria-pressed", String(Boolean(playing) && !playing.original && player.hearsOriginal));
    get("loop").setAttribute("aria-pressed", String(player.loop));
    if (!playing) return;
    let text = playing.name;
    if (!playing.original && player.hearsOriginal) text = `original (instead of ${playing.name})`;
    get("now").textContent = playing.failed ? `${playing.name}: this browser cannot play ${playing.sound}` : text;
  });
}

/** Act on the player's keys and on `own`. Buttons that match the selector `ours` leave space and
 *  enter to them. */
function listenToKeys(own, ours) {
  const keys = { a: player.swap, b: player.swap, l: () => player.setLoop(!player.loop), ...own };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { target } = event;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // Fields, lists and sliders keep their keys.
    if (target.closest("input, select, textarea") && key !== "Escape") return;
    // Space and enter press other buttons and links, as on any page.
    const pressed = target.closest("button, a, summary");
    if ((key === " " || key === "Enter") && pressed && !(ours && pressed.matches(ours))) return;
    if (!keys[key]) return;
    keys[key]();
    event.preventDefault();
  });
}
