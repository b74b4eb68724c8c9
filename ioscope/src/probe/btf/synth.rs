//! Makes small BTF for tests: of kernels that are not running, and of what no compiler writes.

/// BTF in the making. Each method appends one type and returns its number.
#[derive(Default)]
pub(crate) struct Synth {
    types: Vec<u8>,
    strings: Vec<u8>,
    layout: Vec<u8>,
    count: u32,
}

/// A member: name, type, place in bits (the raw word, so that a bitfield's width can be in it).
pub(crate) type SynthMember<'a> = (&'a str, u32, u32);

impl Synth {
    pub(crate) fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// Any type: kind, flag, number of elements, name, size or type, and the words that follow.
    pub(crate) fn raw(
        &mut self,
        kind: u32,
        flag: bool,
        len: usize,
        name: &str,
        word: u32,
        tail: &[u32],
    ) -> u32 {
        let name = self.name(name);
        let info = u32::from(flag) << 31 | kind << 24 | u32::try_from(len).unwrap();
        for word in [name, info, word].iter().chain(tail) {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
        self.count += 1;
        self.count
    }

    pub(crate) fn int(&mut self, name: &str, size: u32) -> u32 {
        self.raw(1, false, 0, name, size, &[size * 8])
    }

    pub(crate) fn pointer(&mut self, to: u32) -> u32 {
        self.raw(2, false, 0, "", to, &[])
    }

    pub(crate) fn array(&mut self, of: u32, count: u32) -> u32 {
        self.raw(3, false, 0, "", 0, &[of, of, count])
    }

    pub(crate) fn structure(&mut self, name: &str, size: u32, members: &[SynthMember<'_>]) -> u32 {
        self.composite(4, false, name, size, members)
    }

    pub(crate) fn union(&mut self, name: &str, size: u32, members: &[SynthMember<'_>]) -> u32 {
        self.composite(5, false, name, size, members)
    }

    /// A structure (4) or union (5), with or without the flag that allows bitfields.
    pub(crate) fn composite(
        &mut self,
        kind: u32,
        flag: bool,
        name: &str,
        size: u32,
        members: &[SynthMember<'_>],
    ) -> u32 {
        let mut tail = Vec::new();
        for (name, id, bits) in members {
            tail.extend([self.name(name), *id, *bits]);
        }
        self.raw(kind, flag, members.len(), name, size, &tail)
    }

    pub(crate) fn enumeration(&mut self, flag: bool, name: &str, values: &[(&str, u32)]) -> u32 {
        let mut tail = Vec::new();
        for (name, value) in values {
            tail.extend([self.name(name), *value]);
        }
        self.raw(6, flag, values.len(), name, 4, &tail)
    }

    pub(crate) fn enumeration64(&mut self, flag: bool, name: &str, values: &[(&str, u64)]) -> u32 {
        let mut tail = Vec::new();
        for (name, value) in values {
            tail.push(self.name(name));
            tail.push(u32::try_from(value & u64::from(u32::MAX)).unwrap());
            tail.push(u32::try_from(value >> 32).unwrap());
        }
        self.raw(19, flag, values.len(), name, 8, &tail)
    }

    pub(crate) fn typedef(&mut self, name: &str, of: u32) -> u32 {
        self.raw(8, false, 0, name, of, &[])
    }

    pub(crate) fn function(&mut self, name: &str, params: &[(&str, u32)]) -> u32 {
        let signature = self.signature(params);
        self.raw(12, false, 0, name, signature, &[])
    }

    pub(crate) fn signature(&mut self, params: &[(&str, u32)]) -> u32 {
        let mut tail = Vec::new();
        for (name, id) in params {
            tail.extend([self.name(name), *id]);
        }
        self.raw(13, false, params.len(), "", 0, &tail)
    }

    /// A tracepoint: the typedef of a pointer to its signature, which has no names.
    pub(crate) fn tracepoint(&mut self, name: &str, params: &[u32]) {
        let data = self.pointer(0);
        let all: Vec<_> = std::iter::once(&data).chain(params).map(|&id| ("", id)).collect();
        let signature = self.signature(&all);
        let pointer = self.pointer(signature);
        self.typedef(&format!("btf_trace_{name}"), pointer);
    }

    pub(crate) fn variable(&mut self, name: &str, id: u32) -> u32 {
        self.raw(14, false, 0, name, id, &[1])
    }

    /// A section of variables: type, offset and size of each.
    pub(crate) fn section(&mut self, name: &str, variables: &[(u32, u32, u32)]) -> u32 {
        let tail: Vec<_> = variables.iter().flat_map(|&(id, offset, size)| [id, offset, size]).collect();
        self.raw(15, false, variables.len(), name, 0, &tail)
    }

    /// Says in the layout section how long the records of each kind are, from kind 0 on.
    pub(crate) fn layout(&mut self, kinds: &[(u8, u8)]) {
        self.layout = kinds.iter().flat_map(|&(once, each)| [once, each, 0, 0]).collect();
    }

    /// The BTF so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let (types, strings) = (len(&self.types), len(&self.strings));
        let header_len: u32 = if self.layout.is_empty() { 24 } else { 32 };
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let mut words = vec![header_len, 0, types, types, strings];
        if !self.layout.is_empty() {
            words.extend([types + strings, len(&self.layout)]);
        }
        for word in words {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes.extend(&self.layout);
        bytes
    }
}
