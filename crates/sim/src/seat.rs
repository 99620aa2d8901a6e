//! The vote register of a simulated machine, shared by all that runs there.
//!
//! A correct replica's register is the one that ships. A liar's cores ask theirs only seemingly: what they ask for is
//! put down, the world has the register sign it, or something else, and answers ([`Seat::asked`]).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use unisono_consensus::RegisterAnswer;
use unisono_node::KeptRegister;
use unisono_trusted::{Refused, Register, RegisterState, VoteRegister};
use unisono_types::{
    Attestation, Certificate, Digest, RegisterId, RegisterView, Signature, Signer, Step, ViewChange, VotePosition,
};

/// What a liar's core asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// A vote.
    Certify(VotePosition),
    /// A view.
    Advance(RegisterView),
}

#[derive(Default, Debug)]
struct Desk {
    asked: VecDeque<Asked>,
    answers: VecDeque<RegisterAnswer>,
}

/// See the module. Cheap to clone; all clones are one register.
#[derive(Clone, Debug)]
pub struct Seat {
    register: Rc<RefCell<Register>>,
    signer: Signer,
    /// Of one core of a liar.
    desk: Option<Rc<RefCell<Desk>>>,
    /// The planted bug: it signs a second vote for one place.
    votes_twice: bool,
}

impl Seat {
    /// Around a register in this state.
    #[must_use]
    pub fn new(id: RegisterId, signer: Signer, state: RegisterState, votes_twice: bool) -> Self {
        let register = Rc::new(RefCell::new(Register::restore(id, signer.clone(), state)));
        Self { register, signer, desk: None, votes_twice }
    }

    /// The same register for one more core, whose questions the world answers.
    #[must_use]
    pub fn of_liar(&self) -> Self {
        Self { desk: Some(Rc::default()), ..self.clone() }
    }

    /// What this core asked for since the last call.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.desk.as_ref().map(|desk| desk.borrow_mut().asked.drain(..).collect()).unwrap_or_default()
    }

    /// Answers the oldest question that is not answered yet.
    pub fn answer(&self, answer: RegisterAnswer) {
        if let Some(desk) = &self.desk {
            desk.borrow_mut().answers.push_back(answer);
        }
    }

    /// Where the register stands.
    #[must_use]
    pub fn state(&self) -> RegisterState {
        self.register.borrow().state()
    }

    /// Signs, for the world.
    ///
    /// # Errors
    /// As the register says.
    pub fn sign(&self, vote: VotePosition) -> Result<Certificate, Refused> {
        let mut register = self.register.borrow_mut();
        let state = register.state();
        match register.certify(vote.view, vote.step, vote.hash) {
            Err(Refused::StepNotNewer) if self.votes_twice && vote.step == state.step => {
                let before = RegisterState { step: Step(vote.step.0 - 1), ..state };
                let mut again = Register::restore(register.id(), self.signer.clone(), before);
                again.certify(vote.view, vote.step, vote.hash)
            }
            answer => answer,
        }
    }

    /// Enters a view, for the world.
    ///
    /// # Errors
    /// As the register says.
    pub fn leave(&self, view: RegisterView) -> Result<ViewChange, Refused> {
        self.register.borrow_mut().advance(view)
    }
}

/// What a liar's core is told at first: nobody else would believe it.
const UNSIGNED: Signature = Signature([0; 64]);

impl VoteRegister for Seat {
    fn certify(&mut self, view: RegisterView, step: Step, hash: Digest) -> Result<Certificate, Refused> {
        let vote = VotePosition { view, step, hash };
        let Some(desk) = &self.desk else { return self.sign(vote) };
        desk.borrow_mut().asked.push_back(Asked::Certify(vote));
        Ok(Certificate { replica: self.id().replica, vote, signature: UNSIGNED })
    }

    fn advance(&mut self, view: RegisterView) -> Result<ViewChange, Refused> {
        let Some(desk) = &self.desk else { return self.leave(view) };
        desk.borrow_mut().asked.push_back(Asked::Advance(view));
        Ok(ViewChange { replica: self.id().replica, view, last: self.state().last, signature: UNSIGNED })
    }

    fn attest(&mut self, nonce: [u8; 32]) -> Attestation {
        self.register.borrow_mut().attest(nonce)
    }
}

impl KeptRegister for Seat {
    fn id(&self) -> RegisterId {
        self.register.borrow().id()
    }

    fn state(&self) -> RegisterState {
        self.state()
    }

    fn released(&mut self, answer: RegisterAnswer) -> RegisterAnswer {
        match (&self.desk, answer) {
            (Some(desk), RegisterAnswer::Certificate(_) | RegisterAnswer::ViewChange(_)) => {
                desk.borrow_mut().answers.pop_front().unwrap_or(answer)
            }
            _ => answer,
        }
    }
}
