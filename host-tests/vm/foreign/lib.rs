include!(env!("EXAMPLE"));
