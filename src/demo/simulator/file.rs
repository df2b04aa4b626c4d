//! The files of the simulated provider, generated from their path.
//!
//! A PNG is valid (8 x 8 pixels, its colour depends on the path). A video has the header of an MP4
//! and no frames. Filler bytes give it the requested size.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use sha2::{Digest, Sha256};

use super::dialect::is_mp4;

/// The largest file: 8 GiB.
const MAX_FILE_BYTES: u64 = 8 << 30;
/// The default size of a video.
const VIDEO_BYTES: u64 = 4096;
/// The size of a chunk of the body.
const CHUNK_BYTES: usize = 64 * 1024;

/// A file: its beginning, the length of the filler, and its end.
#[derive(Clone, Debug)]
pub(super) struct File {
    head: Bytes,
    filler: u64,
    tail: Bytes,
    pub(super) content_type: &'static str,
}

impl File {
    /// The file at `path`. The extension determines its type, the whole path its bytes.
    pub(super) fn at(path: &str, size: Option<u64>) -> Self {
        let hash: [u8; 32] = Sha256::digest(path.as_bytes()).into();
        if is_mp4(path) { Self::video(&hash, size) } else { Self::image(&hash, size) }
    }

    pub(super) fn len(&self) -> u64 {
        self.head.len() as u64 + self.filler + self.tail.len() as u64
    }

    /// The whole file in chunks.
    pub(super) fn chunks(&self) -> impl Stream<Item = Bytes> + Send + Sync + use<> {
        let zeros = Bytes::from(vec![0; CHUNK_BYTES]);
        let filler = stream::unfold(self.filler, move |left| {
            let length = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let chunk = (length > 0).then(|| (zeros.slice(..length), left - length as u64));
            async move { chunk }
        });
        let (head, tail) = (self.head.clone(), self.tail.clone());
        stream::iter([head]).chain(filler).chain(stream::iter([tail]))
    }

    fn image(hash: &[u8; 32], size: Option<u64>) -> Self {
        let mut head = b"\x89PNG\r\n\x1a\n".to_vec();
        // 8 x 8 pixels, 8 bits, RGB.
        chunk(&mut head, *b"IHDR", &[0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 0, 0, 0]);
        let mut rows = Vec::new();
        for y in 0..8_u8 {
            rows.push(0);
            for x in 0..8_u8 {
                rows.extend(hash[..3].iter().map(|c| c.wrapping_add(x.wrapping_mul(4)).wrapping_add(y)));
            }
        }
        chunk(&mut head, *b"IDAT", &stored_zlib(&rows));
        // A private chunk with the whole hash, so that no two files are equal.
        chunk(&mut head, *b"maGd", hash);
        let mut tail = Vec::new();
        chunk(&mut tail, *b"IEND", &[]);
        let whole = (head.len() + tail.len()) as u64;
        let filler = size.unwrap_or(0).clamp(0, MAX_FILE_BYTES).saturating_sub(whole);
        Self { head: head.into(), filler, tail: tail.into(), content_type: "image/png" }
    }

    fn video(hash: &[u8; 32], size: Option<u64>) -> Self {
        let mut head = b"\0\0\0\x18ftypisom\0\0\x02\0isommp42".to_vec();
        let size = size.unwrap_or(VIDEO_BYTES).clamp(64, MAX_FILE_BYTES);
        // One box up to the end of the file, with a 64-bit length.
        let rest = size.saturating_sub(head.len() as u64);
        head.extend_from_slice(b"\0\0\0\x01mdat");
        head.extend_from_slice(&rest.to_be_bytes());
        head.extend_from_slice(&hash[..24]);
        let filler = size.saturating_sub(head.len() as u64);
        Self { head: head.into(), filler, tail: Bytes::new(), content_type: "video/mp4" }
    }
}

/// Appends a chunk of a PNG.
fn chunk(out: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    let begin = out.len();
    out.extend_from_slice(&kind);
    out.extend_from_slice(data);
    let crc = crc32(&out[begin..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

/// A zlib stream without compression, for less than 64 KiB.
fn stored_zlib(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(data);
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend_from_slice(&((b << 16) | a).to_be_bytes());
    out
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bytes(file: &File) -> Vec<u8> {
        file.chunks().collect::<Vec<_>>().await.concat()
    }

    #[tokio::test]
    async fn files_have_their_declared_type_and_are_reproducible() {
        for (path, kind) in [("/files/ok-1/0.png", "image/png"), ("/files/ok-1/0.mp4", "video/mp4")] {
            for size in [None, Some(1), Some(200_000)] {
                let file = File::at(path, size);
                let content = bytes(&file).await;
                assert_eq!(content.len() as u64, file.len());
                assert_eq!(infer::get(&content).unwrap().mime_type(), kind);
                assert_eq!(file.content_type, kind);
                assert_eq!(content, bytes(&File::at(path, size)).await);
                assert_ne!(content, bytes(&File::at(&path.replace('0', "1"), size)).await);
            }
            assert_eq!(File::at(path, Some(200_000)).len(), 200_000);
        }
    }

    #[test]
    fn the_check_sums_match_the_standards() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(stored_zlib(b"Wikipedia")[16..], 0x11e6_0398_u32.to_be_bytes());
    }
}
