//! Maps by their names, of an object that this process loaded or of pins that it opened.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::Map;

use crate::Error;
use crate::set::Set;

#[derive(Debug)]
pub(crate) enum Held {
    Loaded(Ebpf),
    Opened(BTreeMap<&'static str, Map>),
}

impl Held {
    /// Opens these maps of a set.
    pub(crate) fn open(set: &Set, names: &[&'static str]) -> Result<Self, Error> {
        let maps = names.iter().map(|name| Ok((*name, set.map(name)?)));
        Ok(Self::Opened(maps.collect::<Result<_, Error>>()?))
    }

    pub(crate) fn map(&self, name: &'static str) -> Result<&Map, Error> {
        let map = match self {
            Self::Loaded(ebpf) => ebpf.map(name),
            Self::Opened(maps) => maps.get(name),
        };
        map.ok_or(Error::Missing(name))
    }

    pub(crate) fn map_mut(&mut self, name: &'static str) -> Result<&mut Map, Error> {
        let map = match self {
            Self::Loaded(ebpf) => ebpf.map_mut(name),
            Self::Opened(maps) => maps.get_mut(name),
        };
        map.ok_or(Error::Missing(name))
    }

    /// A program that this process loaded.
    pub(crate) fn program(&self, name: &'static str) -> Result<&aya::programs::Program, Error> {
        let program = match self {
            Self::Loaded(ebpf) => ebpf.program(name),
            Self::Opened(_) => None,
        };
        program.ok_or(Error::Missing(name))
    }
}
