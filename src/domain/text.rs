//! Characters that do not print what they are.

/// Returns true for control characters and for invisible characters, such as those that separate lines or change the
/// reading direction. A text with them could show another text than it has.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}
