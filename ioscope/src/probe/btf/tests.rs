use proptest::prelude::*;

use super::synth::Synth;
use super::*;

/// The running kernel's BTF, or a word that the test is skipped.
pub(crate) fn running_kernel() -> Option<Btf> {
    match Btf::from_sys_fs() {
        Ok(btf) => Some(btf),
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

/// A structure as compilers make them: nested anonymous members, arrays, typedefs, bitfields.
fn sample() -> Synth {
    let mut synth = Synth::new();
    let int = synth.int("int", 4);
    let long = synth.int("long unsigned int", 8);
    let nine_bits = synth.raw(1, false, 0, "short", 2, &[9]);
    let inner = synth.structure("", 16, &[("deep", int, 0), ("deeper", long, 64)]);
    let either = synth.union("", 16, &[("", inner, 0), ("whole", long, 0)]);
    let constant = synth.raw(10, false, 0, "", either, &[]);
    let upid = synth.structure("upid", 16, &[("nr", int, 0), ("ns", long, 64)]);
    let alias = synth.typedef("upid_t", upid);
    let alias = synth.typedef("upid_tt", alias);
    let four = synth.array(alias, 4);
    let grid = synth.array(four, 2);
    let flexible = synth.array(upid, 0);
    let tagged = synth.raw(18, true, 0, "user", upid, &[]);
    let pointer = synth.pointer(tagged);
    synth.composite(
        4,
        true,
        "outer",
        400,
        &[
            ("first", int, 0),
            ("bits", int, 3 << 24 | 32),
            ("", constant, 64),
            ("grid", grid, 192),
            ("one", alias, 1216),
            ("pointer", pointer, 1344),
            ("old_bits", nine_bits, 1408),
            ("tail", flexible, 1472),
        ],
    );
    synth.raw(17, true, 0, "tag", upid, &[u32::MAX]);
    synth.raw(16, false, 0, "double", 8, &[]);
    synth.raw(7, true, 0, "declared", 0, &[]);
    synth.enumeration(true, "small", &[("SMALL_MINUS", u32::MAX), ("SMALL_TWO", 2)]);
    synth.enumeration(false, "small_unsigned", &[("SMALL_MAX", u32::MAX)]);
    synth.enumeration64(true, "wide", &[("WIDE_MINUS", u64::MAX), ("WIDE_BIG", 1 << 40)]);
    synth.enumeration64(false, "wide_unsigned", &[("WIDE_MAX", u64::MAX)]);
    synth.function("frob", &[("what", pointer), ("how", int)]);
    synth.tracepoint("frobbed", &[pointer, int]);
    let data = synth.pointer(0);
    synth.function("__traceiter_frobbed", &[("__data", data), ("what", pointer), ("how", int)]);
    synth.tracepoint("nameless", &[int]);
    let (left, right) = (synth.variable("left", int), synth.variable("right", int));
    synth.section(".data..percpu", &[(left, 8, 4), (right, 24, 4)]);
    synth
}

fn btf() -> Btf {
    Btf::from_bytes(sample().bytes()).unwrap()
}

#[test]
fn members_are_found_by_path() {
    let btf = btf();
    let offset = |path| btf.offset("outer", path).unwrap();
    assert_eq!(offset("first"), 0);
    assert_eq!(offset("deep"), 8);
    assert_eq!(offset("deeper"), 16);
    assert_eq!(offset("whole"), 8);
    assert_eq!(offset("grid"), 24);
    assert_eq!(offset("grid[1]"), 24 + 64);
    assert_eq!(offset("grid[1][3].ns"), 24 + 64 + 48 + 8);
    assert_eq!(offset("one.ns"), 160);
    assert_eq!(offset("tail[7].nr"), 184 + 7 * 16);
    assert_eq!(btf.offset("upid_tt", "ns").unwrap(), 8);
}

#[test]
fn a_path_that_leads_nowhere_says_why() {
    let btf = btf();
    let error = |path| btf.offset("outer", path).unwrap_err();
    assert!(matches!(error("none"), BtfError::NoMember { .. }));
    assert!(matches!(error("bits"), BtfError::Bitfield { .. }));
    assert!(matches!(error("old_bits"), BtfError::Bitfield { .. }));
    assert!(matches!(error("first.x"), BtfError::NotAStruct { .. }));
    assert!(matches!(error("pointer.nr"), BtfError::NotAStruct { .. }));
    assert!(matches!(error("grid[2]"), BtfError::NoElement { .. }));
    assert!(matches!(error("first[0]"), BtfError::NoElement { .. }));
    for path in
        ["", ".", "first.", "grid[", "grid[x]", "grid[1", "grid[1]x", "[1]", "grid[-1]", "grid[99999999999]"]
    {
        assert!(matches!(error(path), BtfError::BadPath { .. }), "{path:?}");
    }
    assert!(matches!(btf.offset("nothing", "x"), Err(BtfError::NoType { .. })));
    assert_eq!(error("one.none").to_string(), "this kernel's outer has no member one.none");
}

#[test]
fn a_member_has_size_and_type() {
    let btf = btf();
    let member = btf.member("outer", "grid[0]").unwrap();
    assert_eq!((member.offset, member.size, member.kind), (24, 64, TypeKind::Array));
    assert_eq!(member.type_name, "upid_tt[4]");
    assert_eq!(btf.member("outer", "pointer").unwrap().type_name, "struct upid *");
    assert_eq!(btf.member("outer", "tail").unwrap().size, 0);
    assert_eq!(btf.member("outer", "one").unwrap().kind, TypeKind::Struct);
}

#[test]
fn sizes() {
    let btf = btf();
    for (name, size) in
        [("outer", 400), ("upid_tt", 16), ("int", 4), ("double", 8), ("wide", 8), ("small", 4)]
    {
        assert_eq!(btf.size_of(name).unwrap(), size, "{name}");
    }
    assert!(matches!(btf.size_of("declared"), Err(BtfError::NoType { .. })));
    assert!(btf.has_struct("outer") && !btf.has_struct("upid_t") && !btf.has_struct("declared"));
}

#[test]
fn signatures() {
    let btf = btf();
    let names = |params: Vec<Param>| {
        params.into_iter().map(|param| format!("{} {}", param.type_name, param.name)).collect::<Vec<_>>()
    };
    assert_eq!(names(btf.func_params("frob").unwrap()), ["struct upid * what", "int how"]);
    assert_eq!(names(btf.tracepoint_params("frobbed").unwrap()), ["struct upid * what", "int how"]);
    assert_eq!(names(btf.tracepoint_params("nameless").unwrap()), ["int "]);
    assert!(btf.has_func("frob") && btf.has_tracepoint("frobbed") && !btf.has_tracepoint("frob"));
    assert_eq!(btf.tracepoint_params("gone").unwrap_err().to_string(), "this kernel has no tracepoint gone");
}

#[test]
fn enumerators_of_both_widths_and_signs() {
    let btf = btf();
    assert_eq!(btf.enum_value("small", "SMALL_MINUS").unwrap(), -1);
    assert_eq!(btf.enum_value("small", "SMALL_TWO").unwrap(), 2);
    assert_eq!(btf.enum_value("small_unsigned", "SMALL_MAX").unwrap(), i64::from(u32::MAX));
    assert_eq!(btf.enum_value("wide", "WIDE_MINUS").unwrap(), -1);
    assert_eq!(btf.enum_value("wide", "WIDE_BIG").unwrap(), 1 << 40);
    assert!(btf.enum_value("wide_unsigned", "WIDE_MAX").is_err());
    assert!(btf.enum_value("small", "WIDE_BIG").is_err());
}

#[test]
fn variables() {
    let btf = btf();
    assert!(btf.has_var("left") && !btf.has_var("middle"));
    assert_eq!(btf.var_offset(".data..percpu", "right").unwrap(), 24);
    assert!(btf.var_offset(".data", "right").is_err());
    assert!(btf.var_offset(".data..percpu", "middle").is_err());
}

#[test]
fn of_two_structures_with_one_name_the_one_with_the_member_is_meant() {
    let mut synth = Synth::new();
    let int = synth.int("int", 4);
    synth.structure("twin", 4, &[("left", int, 0)]);
    synth.structure("twin", 8, &[("pad", int, 0), ("right", int, 32)]);
    let btf = Btf::from_bytes(synth.bytes()).unwrap();
    assert_eq!(btf.offset("twin", "right").unwrap(), 4);
    assert!(matches!(btf.offset("twin", "middle"), Err(BtfError::NoMember { .. })));
}

#[test]
fn a_kind_of_the_future_is_skipped_if_the_layout_section_knows_it() {
    let mut synth = Synth::new();
    synth.raw(70, true, 3, "future", 0, &[0xdead, 1, 2, 3, 4, 5, 6]);
    let int = synth.int("int", 4);
    synth.structure("after", 8, &[("", int, 0), ("member", int, 32)]);
    assert!(matches!(Btf::from_bytes(synth.bytes()), Err(BtfError::UnknownKind { kind: 70, id: 1 })));
    let mut kinds = vec![(0, 0); 71];
    kinds[70] = (4, 8);
    synth.layout(&kinds);
    let btf = Btf::from_bytes(synth.bytes()).unwrap();
    assert_eq!(btf.offset("after", "member").unwrap(), 4);
    // A layout section that stops short of the kind does not help.
    synth.layout(&kinds[..70]);
    assert!(matches!(Btf::from_bytes(synth.bytes()), Err(BtfError::UnknownKind { .. })));
}

#[test]
fn what_is_not_btf_is_refused() {
    let good = sample().bytes();
    assert!(matches!(Btf::from_bytes(*b""), Err(BtfError::Truncated { .. })));
    assert!(matches!(Btf::from_bytes(*b"\x7fELF\0\0\0\0"), Err(BtfError::NotBtf { .. })));
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    assert!(matches!(Btf::from_bytes(swapped), Err(BtfError::ForeignEndian)));
    let mut version = good.clone();
    version[2] = 9;
    assert!(matches!(Btf::from_bytes(version), Err(BtfError::Version { version: 9 })));
    for len in 0..good.len() {
        assert!(Btf::from_bytes(&good[..len]).is_err(), "{len} of {} bytes", good.len());
    }
}

#[test]
fn endless_chains_end() {
    let mut synth = Synth::new();
    // Type 1 is a typedef of itself, type 2 an anonymous structure of itself, 3 an array of itself, and
    // 4 to 23 each hold the next one twice.
    synth.typedef("self", 1);
    synth.structure("", 8, &[("", 2, 0), ("", 2, 0)]);
    synth.array(3, 2);
    for next in 5..=24 {
        synth.structure("", 8, &[("", next, 0), ("", next, 0)]);
    }
    let int = synth.int("int", 4);
    assert_eq!(int, 24);
    synth.structure("user", 8, &[("self", 1, 0), ("array", 3, 0), ("", 2, 0)]);
    synth.structure("bomb", 8, &[("", 4, 0)]);
    let btf = Btf::from_bytes(synth.bytes()).unwrap();
    assert!(matches!(btf.size_of("self"), Err(BtfError::TooDeep { .. })));
    assert!(matches!(btf.member("user", "array"), Err(BtfError::TooDeep { .. })));
    assert!(matches!(btf.offset("user", "none"), Err(BtfError::TooDeep { .. })));
    assert!(matches!(btf.offset("bomb", "none"), Err(BtfError::TooDeep { .. })));
}

/// Asks everything that can be asked; answers are of no interest, only that there is one.
fn ask_everything(bytes: Vec<u8>) {
    let Ok(btf) = Btf::from_bytes(bytes) else { return };
    for path in ["first", "deep", "grid[1][2].ns", "one.nr", "tail[3].nr", "pointer", "none"] {
        let _ = btf.offset("outer", path);
        let _ = btf.member("outer", path);
    }
    for name in ["outer", "upid", "upid_tt", "int", "small", "wide"] {
        let _ = btf.size_of(name);
    }
    let _ = btf.func_params("frob");
    let _ = btf.var_offset(".data..percpu", "right");
    let _ = btf.tracepoint_params("frobbed");
    for (name, value) in [("small", "SMALL_TWO"), ("wide", "WIDE_BIG"), ("", "none")] {
        let _ = btf.enum_value(name, value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn mangled_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = sample().bytes();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        ask_everything(bytes);
    }

    #[test]
    fn mangled_words_never_panic(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![0_u32..80, any::<u32>(), Just(u32::MAX)]),
            1..8,
        ),
    ) {
        let mut bytes = sample().bytes();
        for (place, value) in changes {
            let place = place.index(bytes.len() / 4) * 4;
            bytes[place..place + 4].copy_from_slice(&value.to_ne_bytes());
        }
        ask_everything(bytes);
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = sample().bytes();
        bytes.truncate(24);
        bytes.extend(noise);
        ask_everything(bytes);
    }
}

#[test]
fn the_running_kernel() {
    let Some(btf) = running_kernel() else { return };
    assert!(btf.type_count() > 10_000, "{}", btf.type_count());
    assert_eq!(btf.offset("list_head", "prev").unwrap(), 8);
    // What is between them has changed.
    assert!(btf.offset("io_rings", "cq.tail").unwrap() > btf.offset("io_rings", "cq.head").unwrap());
    assert_eq!(btf.member("task_struct", "comm").unwrap().type_name, "char[16]");
    assert_eq!(btf.member("task_struct", "signal").unwrap().type_name, "struct signal_struct *");
    assert_eq!(btf.size_of("pid_t").unwrap(), 4);
    assert_eq!(btf.enum_value("pid_type", "PIDTYPE_TGID").unwrap(), 1);
    assert!(btf.has_func("schedule") && !btf.has_func("no_such_function_anywhere"));
    let waking = btf.tracepoint_params("sched_waking").unwrap();
    assert_eq!(waking.len(), 1);
    assert_eq!(waking[0].type_name, "struct task_struct *");
    assert!(matches!(btf.offset("task_struct", "sched_reset_on_fork"), Err(BtfError::Bitfield { .. })));
}
