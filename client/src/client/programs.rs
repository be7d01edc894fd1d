//! Calls about programs.

use holdfast_proto::v1::{
    AttachProgramRequest, DetachProgramRequest, ListProgramEventsRequest, ListProgramsRequest, Program,
};

use super::{Client, rpc};
use crate::{AttachedProgram, Error, Pages, ProgramEvent};

impl Client {
    /// Attaches a program, and returns its program id. From then on every call runs it that comes by its hook point.
    ///
    /// Steps are read from their text form, which `proto/README.md` tells; see [`StepError`](crate::StepError) for texts
    /// that are none.
    ///
    /// ```no_run
    /// use holdfast::{Client, HookPoint, Program, Step, StepError};
    ///
    /// # async fn attach(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    /// // A total of each cgroup that follows the values of its tasks.
    /// let steps = ["add totals of cgroup delta"].map(str::parse).into_iter().collect::<Result<Vec<Step>, StepError>>()?;
    /// let hook = HookPoint::BucketLocked.into();
    /// let program = Program { name: "sum".into(), hook, map: "quota".into(), steps, ..Program::default() };
    /// client.attach_program(program).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn attach_program(&self, program: Program) -> Result<u64, Error> {
        let request = AttachProgramRequest { program: Some(program) };
        Ok(rpc!(self.programs().attach_program(request)).await?.program_id)
    }

    /// Detaches a program, and returns it with what came of it in the end.
    pub async fn detach_program(&self, name: &str) -> Result<AttachedProgram, Error> {
        let request = DetachProgramRequest { name: name.to_owned() };
        let answer = rpc!(self.programs().detach_program(request)).await?;
        answer.program.ok_or_else(|| Error::malformed(&self.endpoint, "program"))
    }

    /// Lists the programs with their counters, in the order of their program ids.
    pub fn list_programs(&self) -> Pages<AttachedProgram> {
        let client = self.clone();
        Pages::new(move |page_size, page_token| {
            let client = client.clone();
            async move {
                let answer =
                    rpc!(client.programs().list_programs(ListProgramsRequest { page_size, page_token })).await?;
                Ok((answer.programs, answer.next_page_token))
            }
        })
    }

    /// Lists what went wrong in programs, the oldest first: events with a higher sequence than `after`, so 0 for all that
    /// the server has kept.
    pub fn list_program_events(&self, after: u64) -> Pages<ProgramEvent> {
        let client = self.clone();
        Pages::new(move |page_size, page_token| {
            let client = client.clone();
            async move {
                let request = ListProgramEventsRequest { page_size, page_token, after };
                let answer = rpc!(client.programs().list_program_events(request)).await?;
                Ok((answer.events, answer.next_page_token))
            }
        })
    }
}
