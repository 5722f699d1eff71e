//! Between what values lie, and what is said of one that does not.

/// One end of the values that are taken.
#[derive(Clone, Copy, Debug)]
struct Bound<T> {
    at: T,
    /// What the bound is, to follow its value. None where whoever takes the value refuses what is beyond the bound, in
    /// words of its own.
    why: Option<&'static str>,
}

/// Between what values lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FormBounds<T> {
    least: Option<Bound<T>>,
    most: Option<Bound<T>>,
}

impl<T: Copy> FormBounds<T> {
    /// None.
    pub(crate) const NONE: Self = Self { least: None, most: None };

    /// No less than this; `why` says what it is the least of.
    pub(crate) const fn at_least(at: T, why: &'static str) -> Self {
        Self { least: Some(Bound { at, why: Some(why) }), most: None }
    }

    /// Between these two, each with what it is.
    pub(crate) const fn between((least, shortest): (T, &'static str), (most, longest): (T, &'static str)) -> Self {
        let least = Bound { at: least, why: Some(shortest) };
        let most = Bound { at: most, why: Some(longest) };
        Self { least: Some(least), most: Some(most) }
    }

    /// Between these two, which are told here and held to by whoever takes the value.
    pub(crate) const fn told(least: T, most: T) -> Self {
        Self { least: Some(Bound { at: least, why: None }), most: Some(Bound { at: most, why: None }) }
    }
}

impl<T: Copy + PartialOrd> FormBounds<T> {
    /// The value, if it is within the bounds that are held to here.
    pub(super) fn hold(&self, value: T, text: &str, shown: fn(T) -> String) -> Result<T, String> {
        let beyond = |bound: Option<Bound<T>>, is_beyond: fn(&T, &T) -> bool| {
            let Bound { at, why } = bound?;
            why.filter(|_| is_beyond(&value, &at)).map(|why| format!("{}, {why}", shown(at)))
        };
        if let Some(least) = beyond(self.least, T::lt) {
            return Err(format!("`{text}` is less than {least}"));
        }
        if let Some(most) = beyond(self.most, T::gt) {
            return Err(format!("`{text}` is more than {most}"));
        }
        Ok(value)
    }

    /// Both bounds as people write them, also those that somebody else holds to.
    pub(super) fn shown(&self, shown: fn(T) -> String) -> [Option<String>; 2] {
        [self.least, self.most].map(|bound| bound.map(|bound| shown(bound.at)))
    }
}
