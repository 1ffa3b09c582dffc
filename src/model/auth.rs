//! The token, and how somebody shows that they have it without sending it: a challenge, an answer, and an answer back.
//!
//! ```text
//! client                                  daemon
//!   auth                            ──►
//!                                   ◄──   challenge D          D, C: 32 random bytes each
//!   auth C  mac("client", K, D, C)  ──►
//!                                   ◄──   proved mac("daemon", K, D, C)
//! ```
//!
//! `mac` is HMAC-SHA256 (RFC 2104) under the token, over who speaks, the connection and both numbers. The connection is part of
//! it ([`crate::transport::Stream::channel`]), so that whoever stands between two others cannot pass an answer on. The second
//! answer tells the client that it has reached who has the token too, before it says anything that is worth something.

use crate::model::hex;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;

/// Bytes of a token, and of each number.
pub const BYTES: usize = 32;

/// What is only used once.
pub type Nonce = [u8; BYTES];

/// What clients that the kernel does not vouch for have to know. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; BYTES]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// Who connected.
    Client,
    /// Who was connected to.
    Daemon,
}

impl Token {
    /// A token of random bytes.
    pub fn new(random: [u8; BYTES]) -> Token {
        Token(random)
    }

    /// As it stands in its file: 64 hexadecimal digits; blanks around them do not matter.
    pub fn parse(text: &str) -> Option<Token> {
        hex::decode_32(text.trim()).map(Token)
    }

    /// What [`Token::parse`] reads. For its file, and for nothing else.
    pub fn to_file(&self) -> String {
        format!("{}\n", hex::encode(&self.0))
    }

    fn mac(&self, speaker: Speaker, channel: &[u8], challenge: &Nonce, number: &Nonce) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(match speaker {
            Speaker::Client => b"coracle-auth-1 client\0",
            Speaker::Daemon => b"coracle-auth-1 daemon\0",
        });
        // What is behind it has one length, so nothing can be taken for something else.
        mac.update(challenge);
        mac.update(number);
        mac.update(channel);
        mac
    }

    /// The answer of `speaker`.
    pub fn answer(&self, speaker: Speaker, channel: &[u8], challenge: &Nonce, number: &Nonce) -> [u8; BYTES] {
        self.mac(speaker, channel, challenge, number).finalize().into_bytes().into()
    }

    /// Whether that is the answer of `speaker`; takes as long whatever is wrong with it.
    pub fn is_answer(
        &self,
        answer: &[u8; BYTES],
        speaker: Speaker,
        channel: &[u8],
        challenge: &Nonce,
        number: &Nonce,
    ) -> bool {
        self.mac(speaker, channel, challenge, number).verify_slice(answer).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: Nonce = [1; BYTES];
    const C: Nonce = [2; BYTES];

    #[test]
    fn an_answer_is_of_one_token_speaker_connection_and_pair_of_numbers() {
        let token = Token::new([7; BYTES]);
        let answer = token.answer(Speaker::Client, b"tcp 127.0.0.1:1", &D, &C);
        assert!(token.is_answer(&answer, Speaker::Client, b"tcp 127.0.0.1:1", &D, &C));
        assert!(!Token::new([8; BYTES]).is_answer(&answer, Speaker::Client, b"tcp 127.0.0.1:1", &D, &C));
        assert!(!token.is_answer(&answer, Speaker::Daemon, b"tcp 127.0.0.1:1", &D, &C));
        assert!(!token.is_answer(&answer, Speaker::Client, b"tcp 127.0.0.1:2", &D, &C), "passed on");
        assert!(!token.is_answer(&answer, Speaker::Client, b"tcp 127.0.0.1:1", &C, &C));
        assert!(!token.is_answer(&answer, Speaker::Client, b"tcp 127.0.0.1:1", &D, &D));
        for bit in 0..8 * BYTES {
            let mut other = answer;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!token.is_answer(&other, Speaker::Client, b"tcp 127.0.0.1:1", &D, &C));
        }
    }

    /// Computed with another implementation: `python3 -c "import hmac; …"` over the bytes that the header describes.
    #[test]
    fn the_answer_is_what_the_protocol_says() {
        let answer = Token::new([7; BYTES]).answer(Speaker::Client, b"unix", &D, &C);
        assert_eq!(hex::encode(&answer), "c970071de3e6637dbe29cc8f7c03daa95294ebb46a00c1f929a55522bf4bd04d");
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = Token::new([0xab; BYTES]);
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_eq!(Token::parse(&token.to_file()), Some(token));
    }
}
