//! Settings of a namespace below `/proc/sys`.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use overlay_core::{BackendError, ErrorKind, IfName, IpFamily};

use crate::failed;

/// One kernel setting, named by the parts of its path, so that an interface's name may have dots and nothing leads
/// out of `/proc/sys`.
///
/// What lies below `net` is that of the namespace of the *thread* that reads or writes: do it inside
/// [`Namespace::run`](crate::Namespace::run).
///
/// ```no_run
/// use overlay_core::IpFamily;
/// use overlay_kernel::{Namespace, Sysctl};
///
/// let namespace = Namespace::create()?;
/// let forwarding = Sysctl::of_interface(IpFamily::V4, &"lo".parse()?, "forwarding")?;
/// assert_eq!(forwarding.to_string(), "net/ipv4/conf/lo/forwarding");
/// namespace.run(|| forwarding.set("1")).flatten()?;
/// assert_eq!(namespace.run(|| forwarding.read()).flatten()?, "1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sysctl(String);

impl Sysctl {
    /// The setting at these parts of a path: `["net", "ipv4", "ip_forward"]`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a part that is empty, `.` or `..`, or has a `/` or a zero, and for no parts at all.
    pub fn new<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Self, BackendError> {
        let mut path = String::new();
        for part in parts {
            if part.is_empty() || part == "." || part == ".." || part.contains(['/', '\0']) {
                return Err(BackendError::new(ErrorKind::Invalid, format!("name a sysctl with the part {part:?}")));
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
        }
        match path.is_empty() {
            true => Err(BackendError::new(ErrorKind::Invalid, "name a sysctl without parts")),
            false => Ok(Self(path)),
        }
    }

    /// A setting of one interface, `forwarding` say, below `net/ipv4/conf` or `net/ipv6/conf`.
    ///
    /// # Errors
    /// As [`new`](Self::new), if `setting` is no part of a path.
    pub fn of_interface(family: IpFamily, interface: &IfName, setting: &str) -> Result<Self, BackendError> {
        let family = match family {
            IpFamily::V4 => "ipv4",
            IpFamily::V6 => "ipv6",
        };
        Self::new(["net", family, "conf", interface.as_str(), setting])
    }

    /// Its value in the calling thread's namespace, without the line's end.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if this kernel or namespace has no such setting.
    pub fn read(&self) -> Result<String, BackendError> {
        let text = fs::read_to_string(self.path()).map_err(|error| failed(format!("read sysctl {self}"), error))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// Gives it a value in the calling thread's namespace and reads back that it has it.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if there is no such setting, [`ErrorKind::Permission`] if it may not be changed from here,
    /// [`ErrorKind::Invalid`] if the kernel did not take the value, or took another: that is in effect then.
    pub fn set(&self, value: &str) -> Result<(), BackendError> {
        let doing = || format!("set sysctl {self} to {value:?}");
        fs::write(self.path(), value).map_err(|error| failed(doing(), error))?;
        let found = self.read()?;
        if found.split_whitespace().eq(value.split_whitespace()) {
            return Ok(());
        }
        Err(BackendError::new(ErrorKind::Invalid, doing()).caused_by(format!("the kernel made it {found:?}")))
    }

    fn path(&self) -> PathBuf {
        // Not /proc/self: that is the process's first thread, which need not be in this namespace.
        PathBuf::from("/proc/sys").join(&self.0)
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_leads_out_of_the_settings() {
        for parts in [vec![], vec![""], vec!["net", ".."], vec!["net", "a/b"], vec!["."], vec!["a\0b"]] {
            assert_eq!(Sysctl::new(parts.clone()).unwrap_err().kind(), ErrorKind::Invalid, "{parts:?}");
        }
    }

    #[test]
    fn an_interface_may_have_dots_in_its_name() {
        let sysctl = Sysctl::of_interface(IpFamily::V6, &"eth0.100".parse().unwrap(), "accept_ra").unwrap();
        assert_eq!(sysctl.to_string(), "net/ipv6/conf/eth0.100/accept_ra");
    }
}
