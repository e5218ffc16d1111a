//! The version of a classic server, however it is spelt.

use std::fmt;
use std::str::FromStr;

/// A version of the classic server: major, minor, patch.
///
/// Servers spell theirs by the rules of Python packages, so `7.0.0`, `1!7.0.0`, `v7`, `7.0.0rc1` and `7.0.0+local` are all 7.0.0 of the
/// same protocol. The epoch before `!` numbers the scheme of a package's versions and says nothing of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion(pub u32, pub u32, pub u32);

impl ServerVersion {
    /// The oldest version that is understood ([the official client](https://pypi.org/project/spalloc) has the same).
    pub const OLDEST: Self = Self(0, 1, 0);
    /// The newest version that is known, the last of the classic server; all of its major version are understood.
    pub const NEWEST: Self = Self(7, 0, 0);

    /// Whether this client speaks with such a server.
    pub fn is_understood(self) -> bool {
        self >= Self::OLDEST && self.0 <= Self::NEWEST.0
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for ServerVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        let release = match text.split_once('!') {
            Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()) => rest,
            Some(_) => return Err(()),
            None => text,
        };
        let release = release.strip_prefix(['v', 'V']).unwrap_or(release);
        let mut parts = [0; 3];
        let mut rest = release;
        for (n, part) in parts.iter_mut().enumerate() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits == 0 && n > 0 {
                break;
            }
            *part = rest[..digits].parse().map_err(|_| ())?;
            rest = &rest[digits..];
            match rest.strip_prefix('.') {
                Some(after) if n < 2 && after.starts_with(|c: char| c.is_ascii_digit()) => rest = after,
                _ => break,
            }
        }
        // What follows the release must begin as the rules of Python packages let it.
        let fits = rest.is_empty()
            || rest.to_ascii_lowercase().starts_with(['.', '-', '_', '+', 'a', 'b', 'c', 'r', 'p', 'd']);
        if fits { Ok(Self(parts[0], parts[1], parts[2])) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_spellings_are_read() {
        let check = |text: &str, version| assert_eq!(text.parse(), version, "{text}");
        check("0.1.0", Ok(ServerVersion(0, 1, 0)));
        check("1!7.0.0", Ok(ServerVersion(7, 0, 0)));
        check("5.2", Ok(ServerVersion(5, 2, 0)));
        check("v6", Ok(ServerVersion(6, 0, 0)));
        check(" 4.0.0rc1\n", Ok(ServerVersion(4, 0, 0)));
        check("4.0.0.dev3+g12ab", Ok(ServerVersion(4, 0, 0)));
        check("1.2.3.4", Ok(ServerVersion(1, 2, 3)));
        for text in ["", "!", "!1", "x!1", "seven", "1!", "7;0", "-1", "99999999999", "1!2!3"] {
            check(text, Err(()));
        }
    }

    #[test]
    fn understood_are_the_classic_protocols() {
        for (text, understood) in
            [("0.0.2", false), ("0.1.0", true), ("0.5.2", true), ("1!7.0.0", true), ("7.9.1", true), ("8.0.0", false)]
        {
            assert_eq!(text.parse::<ServerVersion>().map(ServerVersion::is_understood), Ok(understood), "{text}");
        }
    }
}
