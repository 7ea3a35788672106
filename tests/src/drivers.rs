//! What a gateway runs on: every test of the relay is two tests.

/// Makes two tests of each function that takes a driver: one on io_uring, one on epoll.
#[macro_export]
macro_rules! on_each_driver {
    ($($name:ident),+ $(,)?) => {
        mod io_uring {
            $(
                #[test]
                fn $name() -> anyhow::Result<()> {
                    super::$name("io_uring")
                }
            )+
        }

        mod epoll {
            $(
                #[test]
                fn $name() -> anyhow::Result<()> {
                    super::$name("epoll")
                }
            )+
        }
    };
}
