//! The command line as scripts see it: exit status, one JSON object, files that are whole or not there.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

struct Outcome {
    status: i32,
    out: String,
    err: String,
}

fn spidnn(args: &[&str]) -> Outcome {
    let output = Command::cargo_bin("spidnn").unwrap().args(args).output().unwrap();
    Outcome {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The one object of a successful `--json` call, with the fields that all have.
fn json(args: &[&str]) -> Value {
    let done = spidnn(&[args, &["--json"]].concat());
    assert_eq!(done.status, 0, "{args:?}: {}", done.err);
    let value: Value = serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", done.out));
    for field in [
        "machine",
        "machine_time_s",
        "phase_s",
        "wall_time_s",
        "macs",
        "cycles_per_mac",
        "packets",
        "host_bytes",
        "energy_j",
    ] {
        assert!(!value[field].is_null(), "{args:?}: no {field}");
    }
    value
}

fn refused(args: &[&str], words: &[&str]) {
    let done = spidnn(args);
    assert_eq!(done.status, 2, "{args:?}: {} {}", done.out, done.err);
    // Errors are wrapped to the terminal's width.
    let text: String = done.err.split_whitespace().filter(|w| *w != "│").collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(text.contains(word), "{args:?}: no `{word}` in {text}");
    }
    assert!(done.out.is_empty(), "{}", done.out);
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_string()
}

#[test]
fn info_compile_machine() {
    let info = json(&["info", "lenet5"]);
    assert_eq!(info["parameters"], 61_706);
    assert_eq!(info["layers"].as_array().unwrap().len(), 9);
    assert!(spidnn(&["info", "resnet50"]).out.contains("25,636,712"));
    let plan = json(&["compile", "lenet5", "--loss", "sparse_categorical_crossentropy", "--batch-size", "96"]);
    assert_eq!(plan["plan"]["chips"], 48);
    assert!(plan["plan"]["programs"]["train"]["cycles"].as_u64().unwrap() > 0);
    let machine = json(&["machine", "virtual:spin5?dead=1,1"]);
    assert_eq!(machine["chip_count"], 47);
    assert!(spidnn(&["machine", "virtual:spin3"]).out.contains("4 chips"));
}

#[test]
fn train_then_use() {
    let folder = tempfile::tempdir().unwrap();
    let (model, weights, outputs) =
        (path(folder.path(), "m.keras"), path(folder.path(), "w.npz"), path(folder.path(), "y.npz"));
    let report = path(folder.path(), "report");
    let small = ["--machine", "virtual:spin3", "--quiet"];
    let fit =
        ["fit", "mlp", "mnist", "--samples", "120", "--epochs", "2", "--batch-size", "60", "--validation-split", "0.2"];
    let done = json(&[&fit[..], &["-o", &model, "--report", &report], &small].concat());
    assert_eq!(done["history"]["val_accuracy"].as_array().unwrap().len(), 2);
    assert!(Path::new(&report).join("plan.txt").exists());
    let again = json(&[&fit[..], &["-o", &weights], &small].concat());
    assert_eq!(done["history"], again["history"]);
    let scores = json(
        &[
            &[
                "evaluate",
                &model,
                "mnist#test",
                "--samples",
                "50",
                "--metrics",
                "accuracy,sparse_top_k_categorical_accuracy:k=3",
            ][..],
            &small,
        ]
        .concat(),
    );
    let of = |name: &str| scores["metrics"][name].as_f64().unwrap();
    assert!(of("sparse_top_k_categorical_accuracy") >= of("accuracy") && of("loss") > 0.0);
    let predicted = json(&[&["predict", &model, "mnist#test", "--samples", "3", "-o", &outputs][..], &small].concat());
    assert_eq!(predicted["outputs"]["y"].as_array().unwrap().len(), 3);
    assert!(Path::new(&outputs).exists());
    let text = spidnn(&[&["predict", &model, &outputs][..], &small].concat());
    assert_eq!(text.status, 2, "outputs are no inputs: {}", text.err);
}

#[test]
fn bad_input_is_status_2() {
    refused(&["info", "lenet6"], &["lenet6", "did you mean `lenet5`"]);
    refused(&["info"], &["MODEL"]);
    refused(&["evaluate", "lenet5", "mnits"], &["mnits", "mnist"]);
    refused(&["evaluate", "lenet5", "mnist#test", "--loss", "crossentropy"], &["crossentropy"]);
    refused(&["evaluate", "lenet5", "mnist#test", "--metrics", "acuracy"], &["did you mean `accuracy`"]);
    refused(&["fit", "lenet5", "mnist", "--optimizer", "adm"], &["did you mean `adam`"]);
    refused(&["fit", "lenet5", "mnist", "-o", "/nowhere/at/all/m.keras"], &["/nowhere/at/all/m.keras"]);
    refused(&["fit", "lenet5", "mnist", "-o", "m.pickle"], &["m.pickle", ".keras"]);
    refused(&["fit", "lenet5", "mnist", "--resume"], &["--checkpoint"]);
    refused(&["machine", "virtul:spin5"], &["virtul", "virtual"]);
    refused(
        &["predict", "lenet5", "mnist#test", "--machine", "virtual:spin3?fidelity=exact"],
        &["exact", "fast or cycle"],
    );
    refused(&["predict", "lenet5", "mnist#test", "--machine", "board:a?version=4"], &["version=4"]);
    refused(&["compile", "resnet50", "--loss", "sparse_categorical_crossentropy"], &["bytes"]);
    let folder = tempfile::tempdir().unwrap();
    let file = path(folder.path(), "cut.keras");
    std::fs::write(&file, b"PK\x03\x04").unwrap();
    refused(&["info", &file], &["cut.keras"]);
    let data = path(folder.path(), "d.csv");
    std::fs::write(&data, "1,2,3\n").unwrap();
    refused(&["fit", "mlp", &data], &["784"]);
    let failed = spidnn(&["info", "lenet6", "--json"]);
    let error: Value = serde_json::from_str(&failed.out).unwrap();
    assert_eq!((failed.status, error["error"]["kind"].as_str()), (2, Some("input")));
}
