// Colours of the map, for light and dark pages. Numbers have Crameri's vik (reversed) and batlow, flags and states colours that
// readers with a colour vision deficiency can tell; all are unlike the ground, which stands for "nothing yet".

const VIK = ["590008", "7e1d06", "a94512", "c37243", "d39774", "e4bfaa", "ebe6e2", "b3d1df", "71a8c4", "2d7ba5", "06548b", "023376", "001261"];
const BATLOW = ["011959", "0e375e", "144d62", "226061", "3c6d56", "5d7844", "828231", "ab8c2d", "d29343", "f29d6d", "fdac9e", "fdbccb", "faccfa"];
const MANY = ["0072b2", "e69f00", "009e73", "cc79a7", "56b4e9", "d55e00", "8f6bb0", "b9a200", "4aa7a0", "a5673f", "7f7fcf", "c8553d"];

const dark = matchMedia("(prefers-color-scheme: dark)");

export const onScheme = (change) => dark.addEventListener("change", change);

// As the canvas stores it: alpha, blue, green, red from the highest byte.
function packed(hex) {
  const number = parseInt(hex, 16);
  return (0xff000000 | ((number & 0xff) << 16) | (number & 0xff00) | (number >> 16)) >>> 0;
}

export const css = (colour) =>
  `#${[0, 8, 16].map((shift) => ((colour >>> shift) & 0xff).toString(16).padStart(2, "0")).join("")}`;

export const theme = () =>
  dark.matches
    ? {
        states: ["3a414b", "4aa3e0", "2fb58a", "f0803c"].map(packed),
        empty: packed("59616c"),
        line: "#c3cad3",
        mark: "#ffffff",
      }
    : {
        states: ["d3d8de", "1f78c1", "0b8a63", "d1481a"].map(packed),
        empty: packed("a9b1bb"),
        line: "#4a525c",
        mark: "#000000",
      };

function ramp(stops) {
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const place = (Math.max(0, value - 1) / 254) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(place));
    const share = place - low;
    const channel = (shift) => {
      const [one, two] = [stops[low], stops[low + 1]].map((stop) => (parseInt(stop, 16) >> shift) & 0xff);
      return Math.round(one + share * (two - one));
    };
    return (0xff000000 | (channel(0) << 16) | (channel(8) << 8) | channel(16)) >>> 0;
  });
}

export const SIGNED = ramp(VIK);
export const SEQUENTIAL = ramp(BATLOW);
export const DISTINCT = Uint32Array.from(MANY.map(packed));

export const flagColours = (flags) => {
  const colours = new Uint32Array(256).fill(packed("888888"));
  Object.values(flags).forEach((value, at) => (colours[value + 1] = DISTINCT[at % DISTINCT.length]));
  return colours;
};
