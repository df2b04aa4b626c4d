//! The media that a model makes, and which file types can contain them.

use serde::Deserialize;

/// A kind of output that a model makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Medium {
    /// Still images.
    #[serde(rename = "image")]
    Image,
    /// Video, with or without sound.
    #[serde(rename = "video")]
    Video,
    /// Audio.
    #[serde(rename = "audio")]
    Audio,
    /// 3D scenes and meshes.
    #[serde(rename = "3d")]
    ThreeD,
    /// Text, captions and data.
    #[serde(rename = "text")]
    Text,
}

/// The media that a file of this type can contain. `None`: any (an archive, an unknown type).
fn media(content_type: &str) -> Option<&'static [Medium]> {
    use Medium::{Audio, Image, Text, ThreeD, Video};
    match content_type {
        // These formats may be animated.
        "image/gif" | "image/webp" | "image/apng" | "image/avif" => return Some(&[Image, Video]),
        // Containers for video and for audio.
        "video/mp4" | "video/webm" | "video/quicktime" | "video/x-matroska" | "video/ogg" | "video/mpeg"
        | "audio/mp4" | "audio/m4a" | "audio/x-m4a" | "audio/webm" | "audio/ogg" | "application/ogg" => {
            return Some(&[Video, Audio]);
        }
        // A mesh may be text.
        "application/json" => return Some(&[Text, ThreeD]),
        _ => {}
    }
    match content_type.split_once('/').map(|(kind, _)| kind) {
        Some("image") => Some(&[Image]),
        Some("video") => Some(&[Video]),
        Some("audio") => Some(&[Audio]),
        Some("model") => Some(&[ThreeD]),
        Some("text") => Some(&[Text, ThreeD]),
        Some(_) | None => None,
    }
}

/// Whether a file of this type can contain one of `wanted`. An empty list accepts any file.
pub(super) fn fits(content_type: &str, wanted: &[Medium]) -> bool {
    wanted.is_empty()
        || media(content_type).is_none_or(|can_be| can_be.iter().any(|medium| wanted.contains(medium)))
}
