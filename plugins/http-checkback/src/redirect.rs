//! Which answers are redirects, and how many are followed.

/// Most redirects that are followed for one question.
pub const MAX_REDIRECTS: u32 = 5;

/// Whether a response with this status sends the asker elsewhere with the same question.
pub fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_or_chosen_among_is_no_redirect() {
        let redirects: Vec<u16> = (300..400).filter(|status| is_redirect(*status)).collect();
        assert_eq!(redirects, [301, 302, 303, 307, 308]);
    }
}
