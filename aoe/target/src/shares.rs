//! Several threads that serve together.

use std::io;
use std::os::fd::AsFd;

use kagero_link::ServerLink;

use crate::serve::Session;
use crate::{Server, Stop};

impl Server {
    /// As [`serve`](Self::serve), with a thread for each of `shares`; this is the first. Each share has links of its own, with the number that
    /// [admission](Self::export_image_to) knows them by. A client's requests for one disk must all come to the same thread.
    ///
    /// # Errors
    /// Also when there is no thread left. What ends one thread ends all.
    pub fn serve_shared<L>(&self, shares: &mut [Vec<(usize, L)>], stop: &(impl AsFd + Sync)) -> io::Result<()>
    where
        L: ServerLink + AsFd + Send,
    {
        let [first, rest @ ..] = shares else { return Ok(()) };
        let all_end = Stop::new()?;
        let serve = |share: &mut Vec<(usize, L)>, announces: bool| {
            let _end = EndAll(&all_end);
            let links = share.iter_mut().map(|(number, link)| (*number, link));
            let mut session = Session::new(self, links, vec![stop.as_fd(), all_end.as_fd()])?;
            session.announces = announces;
            session.run()
        };
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for share in rest {
                let thread = std::thread::Builder::new().name("aoe-target".into());
                match thread.spawn_scoped(scope, || serve(share, false)) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        all_end.stop();
                        return Err(error);
                    }
                }
            }
            let mut result = serve(first, true);
            for thread in threads {
                let ended =
                    thread.join().unwrap_or_else(|_| Err(io::Error::other("a serving thread panicked")));
                result = result.and(ended);
            }
            result
        })
    }
}

/// Ends all threads when one ends, also in a panic.
struct EndAll<'a>(&'a Stop);

impl Drop for EndAll<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
