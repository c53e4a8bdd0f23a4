// The sample rate that the header of an audio file states. Browsers do not tell it: they resample what they decode.

const text = (bytes, at, length) => String.fromCharCode(...bytes.subarray(at, at + length));

const MPEG_RATES = {3: [44100, 48000, 32000], 2: [22050, 24000, 16000], 0: [11025, 12000, 8000]}; // MPEG 1, 2 and 2.5

/** Return the rate in Hz of WAV, FLAC, Ogg Vorbis, Opus, MP3 and MP4 files, or null for anything else. */
export function sampleRateOf(buffer) {
  const bytes = new Uint8Array(buffer), view = new DataView(buffer);
  try {
    const start = text(bytes, 0, 3) === "ID3" ? 10 + syncsafe(bytes, 6) : 0;
    if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WAVE") return rateOfWav(bytes, view);
    if (text(bytes, start, 4) === "fLaC") return view.getUint32(start + 18) >>> 12; // STREAMINFO
    if (text(bytes, 0, 4) === "OggS") return rateOfOgg(bytes, view);
    if (text(bytes, 4, 4) === "ftyp") return rateOfMp4(bytes, view);
    return rateOfMp3(bytes, start);
  } catch (error) {
    if (error instanceof RangeError) return null; // a header that is cut off
    throw error;
  }
}

const syncsafe = (bytes, at) => bytes.subarray(at, at + 4).reduce((sum, byte) => sum * 128 + (byte & 127), 0);

function rateOfWav(bytes, view) {
  for (let at = 12; ; at += 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) & 1))
    if (text(bytes, at, 4) === "fmt ") return view.getUint32(at + 12, true);
}

function rateOfOgg(bytes, view) {
  const packet = 27 + bytes[26]; // behind the header of the first page
  if (text(bytes, packet, 8) === "OpusHead") return 48000;
  return text(bytes, packet, 7) === "\x01vorbis" ? view.getUint32(packet + 12, true) : null;
}

/** The time scale of the first track, which for sound is its rate. */
function rateOfMp4(bytes, view) {
  let at = bytes.indexOf(0x6d); // m
  while (at >= 0 && text(bytes, at, 4) !== "mdhd") at = bytes.indexOf(0x6d, at + 1);
  if (at < 0) return null;
  const rate = view.getUint32(at + (bytes[at + 4] === 1 ? 24 : 16));
  return rate >= 8000 && rate <= 96000 ? rate : null;
}

function rateOfMp3(bytes, start) {
  if (bytes[start] !== 0xff || (bytes[start + 1] & 0xe0) !== 0xe0 || !(bytes[start + 1] & 6)) return null;
  return MPEG_RATES[(bytes[start + 1] >> 3) & 3]?.[(bytes[start + 2] >> 2) & 3] ?? null;
}
