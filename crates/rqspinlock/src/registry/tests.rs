use super::*;

#[test]
fn the_lowest_free_index_is_given_out() {
    let registry: Registry<3> = Registry::new();
    let claim = || registry.claim().map(|context| context.id().index());
    assert_eq!(claim(), Ok(0));
    assert_eq!(claim(), Ok(1));
    registry.context(0).expect("claimed above").release();
    assert_eq!(claim(), Ok(0));
    assert_eq!(claim(), Ok(2));
    assert_eq!(claim(), Err(RegisterError::TooManyCpus { limit: 3 }));
    registry.context(1).expect("claimed above").release();
    assert_eq!(claim(), Ok(1));
}

#[test]
fn scans_stop_at_the_high_water_mark_and_leave_out_oneself() {
    let registry: Registry<8> = Registry::new();
    for _ in 0..3 {
        registry.claim().expect("eight slots");
    }
    let others = |than| {
        let seen = registry.others(CpuId::from_index(than));
        seen.map(|context| context.id().index()).collect::<Vec<_>>()
    };
    assert_eq!(others(0), [1, 2]);
    assert_eq!(others(1), [0, 2]);
    assert_eq!(others(7), [0, 1, 2]);
}

#[test]
fn a_tail_leads_to_its_node() {
    let registry: Registry<2> = Registry::new();
    let context = registry.claim().expect("two slots");
    for nesting in 0..NODES {
        let tail = Tail::new(context.id(), nesting);
        assert!(std::ptr::eq(registry.node(tail), context.node(nesting)));
    }
}

#[test]
fn threads_that_register_at_once_get_different_indices() {
    let registry: Registry<16> = Registry::new();
    let start = std::sync::Barrier::new(8);
    let mut indices: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    registry.claim().expect("sixteen slots").id().index()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("registers")).collect()
    });
    indices.sort_unstable();
    assert_eq!(indices, (0..8).collect::<Vec<_>>());
}
