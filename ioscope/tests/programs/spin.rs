//! Spins in a generic function of a module.

mod layers {
    use std::hint::black_box;

    #[inline(never)]
    pub fn spin_known<T: Copy>(start: T) -> T {
        loop {
            black_box(&start);
        }
    }

    pub struct Turn(pub Vec<u8>);

    impl Turn {
        #[inline(never)]
        pub fn run(&self, depth: usize) -> usize {
            let local = black_box([depth; 60]);
            let found = spin_known(local[depth]);
            found + local[depth] + self.0.len()
        }
    }
}

fn main() {
    println!("ready");
    std::process::exit(i32::try_from(layers::Turn(vec![1]).run(3)).unwrap_or(1));
}
