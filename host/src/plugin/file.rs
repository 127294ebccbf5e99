//! A look at a plugin's file before the dynamic loader gets it. The loader maps what the file's own tables say into
//! memory, and if the file ends earlier, the process dies of it (SIGBUS) without a word.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use super::LoadError;

/// Whether there is something at `path` that the dynamic loader can be trusted with.
pub(super) fn check(path: &Path) -> Result<(), LoadError> {
    let at = || path.to_path_buf();
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => LoadError::Missing { path: at() },
        _ => LoadError::Unreadable { path: at(), error },
    };
    let kind = fs::metadata(path).map_err(unreadable)?.file_type();
    if kind.is_dir() {
        return Err(LoadError::NotAFile { path: at(), what: "a directory" });
    }
    // Opening a pipe, say, might wait for ever.
    if !kind.is_file() {
        return Err(LoadError::NotAFile { path: at(), what: "a device, pipe or socket" });
    }
    let file = File::open(path).map_err(unreadable)?;
    #[cfg(all(unix, not(target_vendor = "apple")))]
    elf::check(path, file)?;
    #[cfg(not(all(unix, not(target_vendor = "apple"))))]
    drop(file);
    Ok(())
}

#[cfg(all(unix, not(target_vendor = "apple")))]
mod elf {
    //! ELF, the format of libraries on Linux and the BSDs.

    use std::fs::File;
    use std::io::{Read, Seek};
    use std::path::Path;

    use object::elf::{ELFMAG, ET_DYN};
    use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
    use object::{Endianness, ReadCache, ReadRef, elf};

    use super::LoadError;

    #[cfg(target_pointer_width = "64")]
    type Header = elf::FileHeader64<Endianness>;
    #[cfg(target_pointer_width = "32")]
    type Header = elf::FileHeader32<Endianness>;

    /// This machine's code in a header, where it is known here.
    const MACHINE: Option<elf::Machine> = if cfg!(target_arch = "x86_64") {
        Some(elf::EM_X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(elf::EM_AARCH64)
    } else {
        None
    };

    pub(super) fn check(path: &Path, mut file: File) -> Result<(), LoadError> {
        let path = || path.to_path_buf();
        let unreadable = |error| LoadError::Unreadable { path: path(), error };
        let length = file.metadata().map_err(unreadable)?.len();
        let mut start = Vec::new();
        (&mut file).take(ELFMAG.len() as u64).read_to_end(&mut start).map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        if start.is_empty() {
            return Err(LoadError::NotALibrary { path: path(), reason: "it is empty" });
        }
        if start != ELFMAG {
            return Err(LoadError::NotALibrary { path: path(), reason: "it does not begin like one" });
        }
        let data = ReadCache::new(file);
        let data = &data;
        let truncated = || LoadError::Truncated { path: path(), length };
        // Not `Header::parse`, which does not tell a short header from a foreign one.
        let header = data.read_at::<Header>(0).map_err(|()| truncated())?;
        let foreign = || LoadError::OtherMachine { path: path() };
        let endian = header.endian().map_err(|_| foreign())?;
        let machine_fits = MACHINE.is_none_or(|machine| header.e_machine(endian) == machine);
        if !header.is_supported() || !machine_fits {
            return Err(foreign());
        }
        if header.e_type(endian) != ET_DYN {
            return Err(LoadError::NotALibrary { path: path(), reason: "it is another kind of binary" });
        }
        if end(header, endian, data).is_none_or(|end| end > length) {
            return Err(truncated());
        }
        Ok(())
    }

    /// Where the last of what the file's tables name ends; `None` if the tables themselves are cut off.
    fn end<'data>(header: &Header, endian: Endianness, data: impl ReadRef<'data>) -> Option<u64> {
        let segments = header.program_headers(endian, data).ok()?;
        let segments = segments.iter().map(|segment| segment.file_range(endian));
        let sections = header.section_headers(endian, data).ok()?;
        let sections = sections.iter().filter_map(|section| section.file_range(endian));
        segments
            .chain(sections)
            .map(|(offset, size)| offset.checked_add(size))
            .try_fold(0, |end, next| Some(end.max(next?)))
    }
}
