//! Forms around others, for values that need not be there.

use super::{Described, Form, FormText};

/// A form in which nothing at all can be written, too: that is no value.
#[derive(Debug)]
pub(crate) struct OrNone<F>(pub(crate) F);

/// A form of which only what somebody wrote is a value: where nobody did, the default is somebody else's to know.
#[derive(Debug)]
pub(crate) struct IfGiven<F>(pub(crate) F);

impl<F: Form> Form for OrNone<F> {
    type Value = Option<F::Value>;

    fn read(&self, text: &str) -> Result<Option<F::Value>, String> {
        if text.is_empty() { Ok(None) } else { self.0.read(text).map(Some) }
    }
}

impl<F: Form> Form for IfGiven<F> {
    type Value = Option<F::Value>;

    fn read(&self, text: &str) -> Result<Option<F::Value>, String> {
        self.0.read(text).map(Some)
    }

    fn take(&self, text: &str, given: bool) -> Result<Option<F::Value>, String> {
        if given { self.read(text) } else { Ok(None) }
    }
}

impl<F: Described> Described for OrNone<F> {
    fn about(&self) -> FormText {
        self.0.about()
    }
}

impl<F: Described> Described for IfGiven<F> {
    fn about(&self) -> FormText {
        self.0.about()
    }
}
