//! The README's session is what a real shell, a real server and real owners print.

use crate::cgroups;
use crate::server::Server;
use crate::session::Text;
use crate::skipped;

#[test]
fn readme_session_is_what_is_printed() {
    let mut readme = Text::read("../README.md");
    let sessions = readme.sessions();
    assert_eq!(sessions.len(), 3, "one session for tasks, one for cgroups, one for programs");
    let server = Server::start();
    // The ids of what comes after a session that was left out.
    let mut other_ids = false;
    for session in sessions {
        if readme.written(&session).contains("CGROUP") && !cgroups::can_be_made() {
            skipped("the README's cgroup session", "no cgroup v2 directory can be made here");
            other_ids = true;
            continue;
        }
        let shows_ids =
            |command: &str| ["holdfast map create", "holdfast update"].iter().any(|shows| command.starts_with(shows));
        readme.replay(session, &server.tcp, |command| other_ids && shows_ids(command));
    }
    readme.bless();
}
