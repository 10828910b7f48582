//! Static bearer tokens from a file: one a line, blank lines and lines that
//! begin with `#` skipped.
//!
//! What is kept of a token is its code under a key made at the start, so that
//! neither a log nor a dump of memory shows it, and a comparison takes the same
//! time whatever is presented.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;
use ring::hmac;
use ring::rand::SystemRandom;

use super::files::{FileError, Watched, read};

/// Fewer characters can be guessed.
const SHORTEST: usize = 16;
/// More have no use, and each is compared with every request's.
const MOST: usize = 256;

/// Makes codes of tokens that say nothing of them.
#[derive(Debug)]
pub(super) struct Coder(hmac::Key);

/// The code of a token.
pub(super) type Code = [u8; 32];

impl Coder {
    pub(super) fn new() -> Result<Coder, ring::error::Unspecified> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map(Coder)
    }

    /// The code of a token, which serves as its name in caches.
    pub(super) fn code(&self, token: &[u8]) -> Code {
        let tag = hmac::sign(&self.0, token);
        let mut code = Code::default();
        for (to, from) in code.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        code
    }

    fn is(&self, token: &[u8], code: &Code) -> bool {
        // In constant time.
        hmac::verify(&self.0, token, code).is_ok()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    coder: Coder,
    codes: ArcSwap<Vec<Code>>,
    watched: Mutex<Watched>,
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, holds no token, or one that cannot be meant.
    pub fn open(path: PathBuf) -> Result<Tokens, FileError> {
        let watched = Mutex::new(Watched::new(vec![path.clone()]));
        let coder = Coder::new().map_err(|_| FileError::new(&path, "the system gives no random numbers"))?;
        let codes = codes(&path, &coder)?;
        if codes.is_empty() {
            return Err(FileError::new(&path, "holds no token"));
        }
        Ok(Tokens { path, coder, codes: ArcSwap::from_pointee(codes), watched })
    }

    /// Reads the file again if it has changed; `None` if not. One that holds no
    /// token any more lets nobody in; one that cannot be used changes nothing.
    pub(super) fn refresh(&self) -> Option<Result<(), FileError>> {
        let changed = self.watched.lock().unwrap_or_else(PoisonError::into_inner).changed();
        changed.then(|| codes(&self.path, &self.coder).map(|codes| self.codes.store(codes.into())))
    }

    /// Whether this is one of them. Takes the same time for all that are not.
    pub(super) fn contain(&self, token: &[u8]) -> bool {
        self.codes.load().iter().fold(false, |found, code| found | self.coder.is(token, code))
    }
}

fn codes(path: &std::path::Path, coder: &Coder) -> Result<Vec<Code>, FileError> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| FileError::new(path, "not UTF-8"))?;
    let mut codes = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(n, l)| (n + 1, l.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.len() < SHORTEST || !line.bytes().all(|b| b.is_ascii_graphic()) {
            let cause = format_args!(
                "line {number}: not a token; accepted: {SHORTEST} or more characters without blanks"
            );
            return Err(FileError::new(path, cause));
        }
        codes.push(coder.code(line.as_bytes()));
    }
    if codes.len() > MOST {
        return Err(FileError::new(path, format_args!("{} tokens; accepted: at most {MOST}", codes.len())));
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef-one";
    const TWO: &str = "0123456789abcdef-two";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn lines_are_tokens() {
        let file = file(&format!("# of the collectors\n{ONE}\n\n  {TWO}\r\n"));
        let tokens = Tokens::open(file.path().into()).unwrap();
        let check =
            |token: &str, expected| assert_eq!(tokens.contain(token.as_bytes()), expected, "{token:?}");
        check(ONE, true);
        check(TWO, true);
        for other in ["", "0123456789abcdef-on", "0123456789abcdef-one ", "# of the collectors"] {
            check(other, false);
        }
        assert!(!format!("{tokens:?}").contains("abcdef"), "a token is shown");
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_bad_one_is_not_taken() {
        let file = file(ONE);
        let tokens = Tokens::open(file.path().into()).unwrap();
        assert!(tokens.refresh().is_none());
        std::fs::write(file.path(), format!("{TWO}\n")).unwrap();
        assert!(tokens.refresh().is_some_and(|r| r.is_ok()));
        assert_eq!((tokens.contain(ONE.as_bytes()), tokens.contain(TWO.as_bytes())), (false, true));
        std::fs::write(file.path(), "se cret").unwrap();
        let error = tokens.refresh().unwrap().unwrap_err().to_string();
        assert!(error.contains("line 1: not a token") && !error.contains("cret"), "{error}");
        assert!(tokens.contain(TWO.as_bytes()) && tokens.refresh().is_none());
        std::fs::write(file.path(), "# none for now\n").unwrap();
        assert!(tokens.refresh().is_some_and(|r| r.is_ok()) && !tokens.contain(TWO.as_bytes()));
    }

    #[test]
    fn files_that_cannot_be_meant() {
        let check = |text: &str, expected: &str| {
            let file = file(text);
            let error = Tokens::open(file.path().into()).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        };
        check("", ": holds no token");
        check("# nothing\n\n", ": holds no token");
        check("\nshort\n", ": line 2: not a token; accepted: 16 or more characters without blanks");
        check(&format!("{ONE}\n").repeat(257), ": 257 tokens; accepted: at most 256");
        let error = Tokens::open("/nowhere/tokens".into()).unwrap_err().to_string();
        assert_eq!(error, "/nowhere/tokens: No such file or directory (os error 2)");
    }
}
