//! Groups and the matrix: which models run beside each other.

use forebay_config::node::Value;

use crate::llama_swap_support::{at, models, swapped};
use crate::support::findings;

/// Percent of the pretended device that each model takes, with `!` for all its computing units; `-`: nothing.
fn shares(text: &str) -> String {
    let root = swapped(text).root;
    let Some(Value::List(clusters)) = root.get("clusters").map(|node| &node.value) else {
        return String::new();
    };
    let each = clusters.iter().map(|cluster| {
        let memory = at(cluster, "scale.gpu.memory");
        let cores = at(cluster, "scale.gpu.cores");
        let share = if memory.is_empty() {
            "-"
        } else {
            memory.trim_end_matches('%')
        };
        let mark = if cores.is_empty() { "" } else { "!" };
        format!("{}:{share}{mark}", at(cluster, "name"))
    });
    each.collect::<Vec<String>>().join(" ")
}

#[test]
fn groups_say_who_runs_beside_whom() {
    let abc = |groups: &str| shares(&models(&["a", "b", "c"], groups));
    for (groups, expected) in [
        ("", "a:100 b:100 c:100"),
        ("groups: {g: {members: [a, b]}}", "a:100 b:100 c:100"),
        (
            "groups: {g: {swap: false, members: [a, b]}}",
            "a:50 b:50 c:100",
        ),
        (
            "groups: {g: {persistent: true, swap: false, exclusive: false, members: [a]}}",
            "a:- b:100 c:100",
        ),
        (
            "groups: {g: {swap: false, exclusive: false, members: [a, b]}}",
            "a:50 b:50 c:100",
        ),
        (
            "groups: {g: {exclusive: false, members: [a, b]}, h: {exclusive: false, swap: false, members: [c]}}",
            "a:50! b:50! c:50",
        ),
        ("groups: {g: {members: []}}", "a:100 b:100 c:100"),
    ] {
        assert_eq!(abc(groups), expected, "{groups}");
    }
    assert_eq!(shares(&models(&["a"], "")), "a:-");
    let root = swapped(&models(&["a"], "")).root;
    assert!(root.get("gpus").is_none());
}

#[test]
fn a_process_is_not_bound_to_the_pretended_device() {
    let text = "models:\n  a: {cmd: 'x ${PORT}', env: ['CUDA_VISIBLE_DEVICES=1', 'CUDA_VISIBLE_DEVICES=0']}\n  b: {cmd: 'x ${PORT}'}\n";
    let root = swapped(text).root;
    let devices = |index: usize| {
        at(
            &root,
            &format!("clusters.{index}.scale.process.env.CUDA_VISIBLE_DEVICES"),
        )
    };
    assert_eq!(devices(0), "0");
    assert!(devices(1).starts_with("0,1,2,"));
    assert_eq!(at(&root, "gpus.0.index"), "0");
    assert_eq!(at(&root, "gpus.1.index"), "");
}

#[test]
fn the_matrix_says_who_runs_beside_whom() {
    let names = ["g", "q", "v", "e", "L"];
    let vars = "vars: {G: g, Q: q, V: v, E: e, L: L}";
    for (sets, expected) in [
        ("{s: '(G | Q) & V', l: L}", "g:51 q:51 v:49 e:100 L:100"),
        ("{s: '(G | Q) & V & E', l: L}", "g:51 q:51 v:24 e:24 L:100"),
        ("{llm: G | Q, s: '+llm & V'}", "g:51 q:51 v:49 e:100 L:100"),
        ("{s: g & q}", "g:49 q:51 v:100 e:100 L:100"),
        ("{s: G}", "g:100 q:100 v:100 e:100 L:100"),
    ] {
        let text = models(&names, &format!("matrix: {{{vars}, sets: {sets}}}\n"));
        assert_eq!(shares(&text), expected, "{sets}");
    }
}

/// Whatever fits on the pretended device together is part of a set.
#[test]
fn no_models_run_together_that_the_matrix_keeps_apart() {
    let names = ["a", "b", "c", "d", "e"];
    let mut seed = 7_u64;
    let mut roll = |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..300 {
        let sets: Vec<u64> = (0..1 + roll(4)).map(|_| 1 + roll(31)).collect();
        let written = sets.iter().enumerate().map(|(index, set)| {
            let members = (0..5)
                .filter(|bit| set >> bit & 1 == 1)
                .map(|bit| names[bit]);
            format!("s{index}: '{}'", members.collect::<Vec<_>>().join(" & "))
        });
        let written: Vec<String> = written.collect();
        let text = models(
            &names,
            &format!("matrix: {{vars: {{}}, sets: {{{}}}}}\n", written.join(", ")),
        );
        let sizes: Vec<u64> = shares(&text)
            .split(' ')
            .map(|one| one.split_once(':').unwrap().1.parse().unwrap())
            .collect();
        for group in 1_u64..32 {
            let together: u64 = (0..5)
                .filter(|bit| group >> bit & 1 == 1)
                .map(|bit| sizes[bit])
                .sum();
            let allowed = group.count_ones() == 1 || sets.iter().any(|set| group & set == group);
            assert!(together > 100 || allowed, "{written:?} {sizes:?} {group:b}");
        }
    }
}

#[test]
fn expressions_that_cannot_be_read_are_found() {
    let deep = format!("{}a{}", "(".repeat(5000), ")".repeat(5000));
    let wide = vec!["(a | b)"; 40].join(" & ");
    for (set, note) in [
        ("''", "it ends too early"),
        ("a &", "it ends too early"),
        ("a b", "`b` is not understood"),
        ("(a", "a `)` is missing"),
        ("'*'", "`*` is not understood"),
        ("zz", "`zz` is no model"),
        ("+zz", "there is no set `zz`"),
        ("+s", "it is too long or too deep, or a set is in itself"),
        (&deep, "it is too long or too deep, or a set is in itself"),
        (&wide, "it stands for too many sets"),
    ] {
        let text = models(
            &["a", "b"],
            &format!("matrix:\n  vars: {{}}\n  sets:\n    s: {set}\n"),
        );
        assert_eq!(
            findings(&swapped(&text)),
            [format!("7:8 lost matrix.sets.s: {note}")]
        );
        assert_eq!(shares(&text), "a:100 b:100");
    }
    let text = models(&["a"], "matrix: {vars: {x: nobody}, sets: {}}\n");
    assert_eq!(
        findings(&swapped(&text)),
        ["3:20 lost matrix.vars.x: there is no model `nobody`"]
    );
}
