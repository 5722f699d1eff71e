//! Keeps address, user and password out of what a database says.
//!
//! A guest may show an error to anybody, and its own queries can make a database say much. Most of what a database says is
//! what an author needs to mend a statement, so it is masked, not withheld.

/// What stands in place of what is masked.
const MASK: &str = "***";
/// Longest text of a database that is passed on, in bytes.
const MAX_TEXT: usize = 1 << 10;

/// Words that no text may hold which leaves this crate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mask(Vec<String>);

impl Mask {
    /// Hides these words. Empty ones hide nothing.
    pub(crate) fn new(words: impl IntoIterator<Item = String>) -> Self {
        let mut words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        // A longer one first: it may hold a shorter one.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words.dedup();
        Self(words)
    }

    /// The text on one line, cut to 1 KiB, with what is hidden replaced by `***`.
    pub(crate) fn apply(&self, text: &str) -> String {
        // Cut late: a word that is cut in two would be known by neither half.
        let mut masked = account_masked(text);
        for word in &self.0 {
            masked = without(&masked, word);
        }
        let mut masked: String = masked.chars().map(|each| if each.is_control() { ' ' } else { each }).collect();
        if masked.len() > MAX_TEXT {
            masked.truncate(masked.floor_char_boundary(MAX_TEXT));
            masked.push('…');
        }
        masked
    }
}

/// The text with each place where the word stands by itself masked. A short user name (`a`) is in too many words.
fn without(text: &str, word: &str) -> String {
    let is_part = |each: Option<char>| each.is_some_and(|each| each.is_alphanumeric() || each == '_');
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, from) = rest.split_at(at);
        let behind = &from[word.len()..];
        masked.push_str(before);
        let stands_alone = !is_part(masked.chars().next_back()) && !is_part(behind.chars().next());
        masked.push_str(if stands_alone || word.len() >= 8 { MASK } else { word });
        rest = behind;
    }
    masked.push_str(rest);
    masked
}

/// Masks `'user'@'host'`, which MySQL puts into its refusals: the host is where the broker itself runs.
fn account_masked(text: &str) -> String {
    let mut masked = text.to_owned();
    while let Some(at) = masked.find("'@'") {
        let (Some(from), Some(to)) = (masked[..at].rfind('\''), masked[at + 3..].find('\'')) else { break };
        masked.replace_range(from..at + 3 + to + 1, MASK);
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_hidden_wherever_it_stands_by_itself() {
        let mask = Mask::new(["ann".to_owned(), "hunter2!".to_owned(), "db.example.com".to_owned(), String::new()]);
        assert_eq!(mask.apply("role \"ann\" at db.example.com"), "role \"***\" at ***");
        assert_eq!(mask.apply("xhunter2!x"), "x***x");
        assert_eq!(mask.apply("table annual"), "table annual");
    }

    #[test]
    fn an_account_of_mysql_is_masked_whole() {
        let text = "SELECT command denied to user 'ann'@'10.0.0.7' for table `shop`.`orders`";
        assert_eq!(Mask::default().apply(text), "SELECT command denied to user *** for table `shop`.`orders`");
    }

    #[test]
    fn a_long_text_is_cut_after_it_was_masked_and_stays_on_one_line() {
        let mask = Mask::new(["secretsecret".to_owned()]);
        let text = mask.apply(&format!("{}\nsecretsecret", "é".repeat(508)));
        assert!(text.len() <= MAX_TEXT + '…'.len_utf8() && !text.contains('\n') && !text.contains("secr"), "{text}");
    }
}
