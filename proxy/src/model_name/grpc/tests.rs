//! Calls as clients send them, and bytes that no client sends.

use proptest::prelude::*;

use super::*;
use crate::model_name::edit::Editing;

fn field(number: u64, content: &[u8]) -> Vec<u8> {
    [
        varint(number << 3 | 2),
        varint(content.len() as u64),
        content.to_vec(),
    ]
    .concat()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn call(nested: bool, name: &str, before: &[u8], after: &[u8]) -> Vec<u8> {
    let named = field(1, name.as_bytes());
    let named = match nested {
        false => named,
        true => field(1, &[before, &named, after].concat()),
    };
    framed(&[before, &named, after].concat())
}

fn read(nested: bool, bytes: &[u8], size: usize) -> Call {
    let mut call = Call::new(nested);
    bytes.chunks(size).for_each(|piece| call.feed(piece));
    call
}

fn name(nested: bool, bytes: &[u8]) -> Option<String> {
    let call = read(nested, bytes, 1);
    assert!(!call.is_ambiguous());
    Some(call.written()?.name.clone())
}

/// Fields of every kind, none of them the first.
fn others() -> Vec<u8> {
    let numbers = [
        varint(2 << 3),
        varint(300),
        varint(3 << 3 | 1),
        vec![9; 8],
        varint(4 << 3 | 5),
        vec![9; 4],
    ];
    [numbers.concat(), field(5, &[1; 300]), field(6, b"")].concat()
}

#[test]
fn the_first_field_is_found_wherever_it_is() {
    for nested in [false, true] {
        for (before, after) in [(vec![], vec![]), (others(), others()), (vec![], others())] {
            let call = call(nested, "resnet", &before, &after);
            assert_eq!(name(nested, &call).as_deref(), Some("resnet"));
            let mut two = call.clone();
            two.extend_from_slice(&call);
            assert_eq!(
                name(nested, &two).as_deref(),
                Some("resnet"),
                "two messages"
            );
        }
    }
    let early = &call(false, "resnet", &[], &others())[..5 + 2 + 6];
    assert_eq!(
        name(false, early).as_deref(),
        Some("resnet"),
        "the rest need not be there"
    );
}

#[test]
fn what_has_no_name_is_absent_and_two_names_are_ambiguous() {
    for bytes in [
        framed(b""),
        framed(&others()),
        framed(&[0x0b]),
        framed(&[0x0a, 0x20, b'm']),
        framed(&[0x0a]),
        framed(&[0xff; 12]),
        framed(&field(1, &[0xff])),
        framed(&field(1, &[b'x'; LONGEST + 1])),
        [&[1], &framed(&field(1, b"m"))[1..]].concat(),
        framed(&[0x08, 0x01]),
    ] {
        let call = read(false, &bytes, 1);
        assert!(call.is_absent() && call.written().is_none(), "{bytes:?}");
    }
    for bytes in [
        framed(&[field(1, b"m"), field(1, b"m")].concat()),
        [call(false, "m", b"", b""), call(false, "n", b"", b"")].concat(),
        [call(false, "m", b"", b""), vec![1]].concat(),
        framed(&[field(1, b"m"), vec![0x0b]].concat()),
    ] {
        assert!(read(false, &bytes, 1).is_ambiguous(), "{bytes:?}");
    }
    let spec = field(1, &field(1, b"m"));
    assert!(read(true, &framed(&[spec.clone(), spec].concat()), 1).is_ambiguous());
    assert!(read(true, &framed(&field(1, &field(4, b"m"))), 1).is_absent());
    assert!(read(true, &framed(&field(1, b"m")), 1).is_absent());
}

proptest! {
    #[test]
    fn an_edited_message_is_the_one_with_the_other_name(
        nested in any::<bool>(), from in "[a-z]{0,200}", to in "[a-z]{0,200}", filled in any::<bool>(), size in 1usize..40,
    ) {
        let (before, after) = if filled { (others(), others()) } else { Default::default() };
        let original = call(nested, &from, &before, &after);
        let found = read(nested, &original, size);
        let mut editing = Editing::new(found.written().unwrap().edits(&to));
        let edited: Vec<u8> = original
            .chunks(size)
            .flat_map(|piece| editing.pass(piece).unwrap_or_else(|| piece.to_vec().into()))
            .collect();
        prop_assert_eq!(edited, call(nested, &to, &before, &after));
    }

    #[test]
    fn any_bytes_are_survived_in_any_pieces(
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..20, any::<u8>()], 0..80),
        nested in any::<bool>(), size in 1usize..9,
    ) {
        for bytes in [bytes.clone(), framed(&bytes)] {
            let (one, all) = (read(nested, &bytes, size), read(nested, &bytes, usize::MAX));
            prop_assert_eq!(one.written(), all.written());
            prop_assert_eq!(one.is_absent(), all.is_absent());
            prop_assert_eq!(one.is_ambiguous(), all.is_ambiguous());
        }
    }
}

#[test]
fn a_key_of_more_than_32_bits_hides_no_second_name() {
    let long = [0x8a, 0x80, 0x80, 0x80, 0x10, 1, b'b']; // field 1 to who keeps 32 bits of its key
    let doubled = framed(&[&field(1, b"a")[..], &long].concat());
    assert!(read(false, &doubled, 1).is_ambiguous());
    let padded = [0x8a, 0x80, 0x80, 0x00, 1, b'b']; // the same key, written long
    let doubled = framed(&[&field(1, b"a")[..], &padded].concat());
    assert!(read(false, &doubled, 1).is_ambiguous());
}
