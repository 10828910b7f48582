//! Where a password or token is, and what it is only where it was given on the spot.

use std::path::PathBuf;

/// Longest secret that is read, bytes. Tokens of service accounts have about 1,000.
const MAX_SECRET: usize = 16 << 10;

/// The place of a secret. Its `Debug` and errors show the place only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// This file, without blanks at its ends.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// Given in the URI itself, as Heapster's have it.
    Given(Given),
}

/// A secret that was given on the spot, which nobody is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Given(String);

impl Given {
    /// Hides a secret.
    pub fn new(secret: String) -> Given {
        Given(secret)
    }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Given")
    }
}

/// Why a secret cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("read the secret in {path:?}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// There is no such variable, or it is not text.
    #[error("read the secret in ${0}: not set")]
    Environment(String),
    /// It is empty, too long, or has characters no header takes.
    #[error("use the secret in {0}: empty, over 16 KiB, or with control characters")]
    Unusable(String),
}

impl Secret {
    /// The secret, as it is now.
    ///
    /// # Errors
    /// It is not there or cannot be used.
    pub fn read(&self) -> Result<String, SecretError> {
        let (place, text) = match self {
            Secret::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| SecretError::File { path: path.clone(), cause: e.to_string() })?;
                (path.display().to_string(), text)
            }
            Secret::Environment(name) => {
                let text = std::env::var(name).map_err(|_| SecretError::Environment(name.clone()))?;
                (format!("${name}"), text)
            }
            // Taken as it is: blanks may be meant.
            Secret::Given(Given(secret)) => return Ok(secret.clone()),
        };
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_SECRET || text.chars().any(char::is_control) {
            return Err(SecretError::Unusable(place));
        }
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_again_and_trimmed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let secret = Secret::File(path.clone());
        assert!(matches!(secret.read(), Err(SecretError::File { .. })));
        std::fs::write(&path, "  one\n").unwrap();
        assert_eq!(secret.read().unwrap(), "one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(secret.read().unwrap(), "two");
        for unusable in ["", " \n", "a\nb", &"x".repeat(20_000)] {
            std::fs::write(&path, unusable).unwrap();
            let error = secret.read().expect_err("unusable");
            assert!(matches!(error, SecretError::Unusable(_)), "{error}");
        }
    }

    #[test]
    fn variables() {
        let missing = Secret::Environment("NODEGAUGE_TEST_NO_SUCH_VARIABLE".to_owned());
        let error = missing.read().expect_err("not set").to_string();
        assert_eq!(error, "read the secret in $NODEGAUGE_TEST_NO_SUCH_VARIABLE: not set");
        assert!(!Secret::Environment("PATH".to_owned()).read().unwrap().is_empty());
    }
}
