// The time lines of a song: a click plays from there. Takes page; byPlace; player; cards.

{
  const lines = [...document.querySelectorAll("[data-line]")];
  const said = document.getElementById("line-said");

  /** Where a pointer is: the feature's number and the share of the song. */
  function placeOf(line, event) {
    const box = line.querySelector("img").getBoundingClientRect();
    const count = Number(line.dataset.count);
    const within = (share) => Math.min(1 - 1e-9, Math.max(0, share));
    return {
      k: Math.floor(within((event.clientY - box.top) / box.height) * count),
      share: within((event.clientX - box.left) / box.width),
    };
  }

  function featureAt(line, k) {
    return byPlace.get(`${line.dataset.line}/${k}`);
  }

  function say(line, { k, share }) {
    const feature = featureAt(line, k);
    const sound = feature && !feature.silent ? "" : feature ? ", silent" : ", without a sound";
    const name = `${page.layers[line.dataset.line].name}/${k}`;
    said.textContent = `${name} at ${(share * page.seconds).toFixed(1)} s${sound}`;
  }

  for (const line of lines) {
    const head = document.createElement("span");
    head.className = "playhead";
    head.hidden = true;
    line.querySelector(".axes").append(head);
    player.onTick((time, share) => {
      head.style.left = `${100 * share}%`;
      head.hidden = share === 0;
    });
    line.addEventListener("pointermove", (event) => say(line, placeOf(line, event)));
    line.addEventListener("click", (event) => {
      const place = placeOf(line, event);
      const feature = featureAt(line, place.k);
      if (feature && !feature.silent) {
        cards.choose(feature, { focus: false });
        cards.hold(feature);
      } else {
        cards.holdOriginal();
      }
      player.seek(place.share);
      if (player.paused) player.toggle();
      say(line, place);
    });
  }
}
