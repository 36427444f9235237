package proxy

import "testing"

// TestPasswords holds the schemes against crypt(3) and htpasswd(1).
func TestPasswords(t *testing.T) {
	const long = "a long password that is longer than the digest it makes, for sure"
	for _, c := range []struct{ password, hashed string }{
		{"password", "sa3tHJ3/KuYvI"},
		{"", "..X8NBuQ4l6uQ"},
		{"longer than eight", "zz.JiwC6aD7cA"},
		{"password", "$1$salt$qJH7.N4xYta3aEG/dfqo/0"},
		{long, "$1$s$bK5IJOdiRNjopM7E2hqKk."},
		{"password", "$apr1$salt$Xxd1irWT9ycqoYxGFn4cb."},
		{"Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"},
		{"Hello world!", "$6$rounds=1400$anotherlongsalts$5FGyu8c4BZDX4wJgs0Un26YOw2XibT5eTkHF1I1aP3QqStoJI9BHD2YPJYsAjEePVGUyBjdZxcNqMWlrrbIOC."},
		{long, "$6$s$wzV397MjiFGx8tf9P9mrtEES6bUhH/OqKkd8g.2M1C/wQk0/RUt6a8mBEbsh8cT4cJZ5VQqJTRYjVtTF9Coze0"},
		{"x", "$2y$05$abcdefghijklmnopqrstuuhKF09ZYWwH2zP/0fwE1X8e/Q1YNx/hO"},
		{"password", "{PLAIN}password"},
		{"password", "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0"},
		{"password", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="},
	} {
		if matches, known := passwordMatches(c.password, c.hashed); !matches || !known {
			t.Errorf("%s: %v, %v", c.hashed, matches, known)
		}
		if matches, _ := passwordMatches("#"+c.password, c.hashed); matches {
			t.Errorf("%s takes another password", c.hashed)
		}
	}
	for _, hashed := range []string{
		"", "x", "!!", "$1$", "$apr1$", "{SSHA}", "{SSHA}Zm9vCg==", "{SSHA}_", "{SHA}", "{SHA}Zm9vCg==", "{PLAIN}", "$5$", "$6$",
		"$6$rounds=", "$6$rounds=x$", "$6$rounds=999999999$a$b", "$2y$", "$2y$99$abcdefghijklmnopqrstuuhKF09ZYWwH2zP/0fwE1X8e/Q1YNx/hO", "$y$j9T$a$b",
	} {
		if matches, _ := passwordMatches("password", hashed); matches {
			t.Errorf("%q matches", hashed)
		}
	}
}

// FuzzPasswords: nothing in a password file breaks the server.
func FuzzPasswords(f *testing.F) {
	for _, hashed := range []string{"$6$rounds=1000$a$b", "$1$", "$apr1$x", "{SSHA}x", "$5$$", "ab", "$2y$05$x"} {
		f.Add("p", hashed)
	}
	f.Fuzz(func(_ *testing.T, password, hashed string) { passwordMatches(password, hashed) })
}
