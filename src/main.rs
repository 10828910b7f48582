//! A first look.
use nodegauge::{collect::sampler::*, kernel::*, snapshot::*};
fn main() {
    let root = std::env::args().nth(1).unwrap_or("/".into());
    let o = Options {
        kinds: Kind::ALL.iter().fold(Kinds::NONE, |k, x| k.with(*x)),
        handle_memory: 16 << 20,
        descriptors: handles::raise_descriptor_limit(),
        max_cgroups: 20000,
    };
    let d: Describe = Box::new(|path, created| {
        std::sync::Arc::new(Cgroup {
            labels: format!("id=\"{path}\""),
            path,
            created,
            identity: Identity::default(),
        })
    });
    let mut s = Sampler::new(Roots::new(root.as_ref()), o, d).unwrap();
    let mut snap = s.blank();
    s.tick(Origin::Fresh, &mut snap);
    println!("{}", serde_json::to_string_pretty(&snap).unwrap());
    eprintln!("{:#?}", s.report());
}
