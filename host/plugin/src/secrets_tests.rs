//! What is taken for a secret, and what is not.

use serde_json::json;

use super::*;

#[test]
fn names_of_secrets_have_a_word_of_one_in_any_spelling() {
    for name in [
        "authorization",
        "Proxy-Authorization",
        "PASSWORD",
        "db_password",
        "dbPassword",
        "api-key",
        "API_KEY",
        "apiKey",
        "x-api-key",
        "token",
        "access.token",
        "accessToken",
        "set-cookie",
        "client secret",
        "private_key",
        "password2",
        "token1",
        "s3_secret",
        "DBPassword",
        "APIToken",
        "APIKey",
        "dbpassword",
        "authtoken",
        "accesstoken",
        "accesstokens",
        "secretkey",
        "PassWord",
        "dbApikey",
        "AWSSecretAccessKey",
        "AccountKey",
        "pass",
        "db_pass",
        "smtpPass",
        "pass2",
        "dsn",
        "DB-DSN",
        "connection string",
        "ConnectionString",
        "orders.credentials",
        "sig",
        "SIG2",
        "X-Amz-Signature",
        "signature",
        "urlSig",
        "key",
        "Key",
        "key1",
        "code",
        "session",
        "user_session",
        "sessionid",
        "PHPSESSIONID",
        "session-key",
    ] {
        assert!(is_secret_name(name), "{name}");
    }
    for name in [
        "url",
        "url2",
        "URL",
        "field",
        "commit",
        "rollback-missing-after",
        "keys",
        "codes",
        "sigs",
        "fence-key",
        "message-key",
        "keyname",
        "status-code",
        "country_code",
        "signature-version",
        "session-timeout",
        "sessions",
        "design",
        "assign",
        "tokenizer",
        "tokenize",
        "secretary",
        "passive",
        "passage",
        "pass-through",
        "passCount",
        "bypass",
        "compass",
        "author",
        "authority",
        "api",
        "apiURL",
        "dsns",
        "connection",
        "string",
        "sha256",
        "2",
        "",
    ] {
        assert!(!is_secret_name(name), "{name}");
    }
}

#[test]
fn a_document_is_shown_without_its_secrets_and_with_all_else() {
    let mut document = json!({
        "plugin": "p:1", "topics": ["token"], "grants": {"http": ["http://u:p@h:1/"], "headers": {"Cookie": ["a"]}},
        "config": {"url": "https://me:pw@h/x?a=1&token=t0&k={property.token}#f", "authorization": "Bearer x",
            "api_key": 7, "password": {"secret": "orders-db"}, "token": {"a": 1}, "field": "/secret", "pwd": null}
    });
    mask_document(&mut document);
    assert_eq!(
        document,
        json!({
            "plugin": "p:1", "topics": ["token"], "grants": {"http": ["http://***@h:1/"], "headers": {"Cookie": "***"}},
            "config": {"url": "https://***@h/x?a=1&token=***&k={property.token}#f", "authorization": "***",
                "api_key": "***", "password": {"secret": "orders-db"}, "token": "***", "field": "/secret", "pwd": null}
        })
    );
}

#[test]
fn the_user_of_a_database_is_shown_where_the_url_has_no_password() {
    let url = |url: &str| json!({"grants": {"sql": {"a/~b": {"url": url}}}});
    for (given, shown) in [
        ("postgres://shop@db:5432/shop?token=t0", "postgres://shop@db:5432/shop?token=***"),
        ("mysql://shop:pa55@db/shop", "mysql://***@db/shop"),
        ("postgres://shop%3Apa55@db/shop", "postgres://***@db/shop"),
        ("postgres://db/shop?user=a@b", "postgres://db/shop?user=a@b"),
        ("sqlite:/var/lib/a@b.db", "sqlite:/var/lib/a@b.db"),
    ] {
        let mut document = url(given);
        mask_document(&mut document);
        assert_eq!(document, url(shown), "{given}");
    }
    let mut elsewhere = json!({"grants": {"http": ["https://t0ken@h/"]}, "config": {"url": "https://t0ken@h/"}});
    mask_document(&mut elsewhere);
    assert!(!elsewhere.to_string().contains("t0ken"), "{elsewhere}");
}

#[test]
fn a_reference_to_a_secret_is_one_only_where_references_stand() {
    for (mut document, shown) in [
        (json!({"config": {"secret": "hunter2"}}), json!({"config": {"secret": "***"}})),
        (json!({"grants": {"secret": "hunter2"}}), json!({"grants": {"secret": "***"}})),
        (json!({"secret": "hunter2"}), json!({"secret": "***"})),
        (json!({"config": {"db": {"secret": "n"}}}), json!({"config": {"db": {"secret": "n"}}})),
        (
            json!({"config": {"url": {"secret": "http://u:p@h"}}}),
            json!({"config": {"url": {"secret": "http://***@h"}}}),
        ),
        (json!({"config": {"db": {"x": {"secret": "hunter2"}}}}), json!({"config": {"db": {"x": {"secret": "***"}}}})),
        (json!({"config": {"db": {"password": {"secret": "s"}}}}), json!({"config": {"db": {"password": "***"}}})),
        (json!({"config": [{"secret": "hunter2"}]}), json!({"config": [{"secret": "***"}]})),
        (
            json!({"grants": {"sql": {"orders": {"host": "h", "password": {"secret": "orders-db"}}}}}),
            json!({"grants": {"sql": {"orders": {"host": "h", "password": {"secret": "orders-db"}}}}}),
        ),
        (json!({"grants": {"sql": {"secret": "hunter2"}}}), json!({"grants": {"sql": {"secret": "***"}}})),
    ] {
        mask_document(&mut document);
        assert_eq!(document, shown);
    }
}

#[test]
fn what_comes_back_masked_is_found_wherever_it_is() {
    let of = |document: Value| masked_member(&document);
    assert_eq!(of(json!({"config": {"authorization": "***"}})).as_deref(), Some("config.authorization"));
    assert_eq!(of(json!({"config": {"url": "http://***@h"}})).as_deref(), Some("config.url"));
    assert_eq!(of(json!({"config": {"url": "http://h?token=***"}})).as_deref(), Some("config.url"));
    assert_eq!(of(json!({"grants": {"http": [{"origin": "***"}]}})).as_deref(), Some("grants.http[0].origin"));
    assert_eq!(of(json!({"grants": {"http": ["a", "***"]}})).as_deref(), Some("grants.http[1]"));
    let fine = json!({"config": {"authorization": "****", "url": "http://u:***x@h?a=***", "note": "a *** b"}});
    assert_eq!(masked_member(&fine), None);
}

#[test]
fn urls_are_found_in_text_and_what_is_none_is_left() {
    for (text, masked) in [
        ("`http://u:p@h/x`: an origin", "`http://***@h/x`: an origin"),
        ("http://a@b@h", "http://***@h"),
        ("http://h/a@b", "http://h/a@b"),
        ("http://@h", "http://@h"),
        ("see http://h?secret=s and https://x?token=t", "see http://h?secret=*** and https://x?token=***"),
        ("http://h?next=http://u:p@i&token=t", "http://h?next=http://***@i&token=***"),
        ("http://h?token=", "http://h?token="),
        ("mail a@b", "mail a@b"),
        ("пароль://ю:я@д", "пароль://***@д"),
        ("http://me:it's@h/x", "http://***@h/x"),
        (" http://me:a b\"<c>`d@h/x", " http://***@h/x"),
        ("postgres://me:a\\b@h/x", "postgres://***@h/x"),
        ("http://h?token=ab'cd", "http://h?token=***"),
        ("http://h?token=ab cd&a=b", "http://h?token=***&a=b"),
        ("`http://h?token=a'b`: an origin", "`http://h?token=***`: an origin"),
        ("`http://me:a`b@h`: an origin", "`http://***@h`: an origin"),
        (r#"string "http://me:a\"b@h", expected"#, r#"string "http://***@h", expected"#),
        (r#"["http://h","a@b"]"#, r#"["http://h","a@b"]"#),
        ("<http://h?token=t> a@b", "<http://h?token=***> a@b"),
        ("cut: 'http://h?token=a b", "cut: 'http://h?token=***"),
        ("https://h/cb#access_token=x", "https://h/cb#access_token=***"),
        ("https://h/cb?a=1#a=b&access_token=x#y&c=d", "https://h/cb?a=1#a=b&access_token=***&c=d"),
        ("https://h/#/cb?token=x", "https://h/#/cb?token=***"),
        ("http://h?a=1;token=b;c;d=e", "http://h?a=1;token=***;d=e"),
        ("http://h?%74oken=b", "http://h?%74oken=***"),
        ("http://h?token={a}b{c}", "http://h?token=***"),
        ("http://h?a=?token&b=#token", "http://h?a=?token&b=#token"),
        ("https://h/x?sv=1&sig=a%2Fb%3D&se=2", "https://h/x?sv=1&sig=***&se=2"),
        ("https://h/x?key=AIza&keys=a&message-key=b", "https://h/x?key=***&keys=a&message-key=b"),
        ("https://h/x?code=1&status-code=2#session=3", "https://h/x?code=***&status-code=2#session=***"),
        ("https://h/x?X-Amz-Signature=ab&X-Amz-Date=c", "https://h/x?X-Amz-Signature=***&X-Amz-Date=c"),
        ("http://h/{id}?key={key}&code={property.code}", "http://h/{id}?key={key}&code={property.code}"),
    ] {
        assert_eq!(mask_urls(text), masked);
    }
}

#[test]
fn connection_strings_are_shown_without_their_secrets() {
    for (text, masked) in [
        ("user:pw@tcp(h:3306)/db?tls=true", "***@tcp(h:3306)/db?tls=true"),
        ("user:p@:w d@/db", "***@/db"),
        ("user@tcp(h)/db", "user@tcp(h)/db"),
        ("Server=h;User ID=me;Password=p w;Encrypt=yes", "Server=h;User ID=me;Password=***;Encrypt=yes"),
        ("Server=h; PWD = a;b", "Server=h; PWD = ***"),
        ("Driver={X};Pwd={a;b=c};Uid=me", "Driver={X};Pwd={***};Uid=me"),
        ("Password=\"a;b=c\";Server=h", "Password=\"***\";Server=h"),
        ("AccountName=a;AccountKey=ab/c==;Suffix=s", "AccountName=a;AccountKey=***;Suffix=s"),
        ("host=h password=x sslmode=on", "host=h password=*** sslmode=on"),
        ("h:6379,password=x,ssl=True", "h:6379,password=***,ssl=True"),
        (
            "jdbc:sqlserver://h:1;user=me;password=x;encrypt=true",
            "jdbc:sqlserver://h:1;user=me;password=***;encrypt=true",
        ),
        ("Server=h;Password=it's=x, y=z;A=b", "Server=h;Password=***;A=b"),
        ("host=h password=a,b=c&d=e f=g", "host=h password=*** f=g"),
        ("host=h password='a b=c' f=g", "host=h password='***' f=g"),
        ("Password='a' ; B=c", "Password='***' ; B=c"),
        ("string \"Password=x\"", "string \"Password=***"),
        ("token={property.token}&id={key}", "token={property.token}&id={key}"),
        ("a=b;c=d", "a=b;c=d"),
        ("host=h key=/etc/k.pem code=5", "host=h key=/etc/k.pem code=5"),
        ("SharedAccessSignature sr=h&sig=ab%3D&se=1", "SharedAccessSignature sr=h&sig=***&se=1"),
        ("password", "password"),
        ("the password is equal to it", "the password is equal to it"),
        ("check:1.0@sha256:ab", "check:1.0@sha256:ab"),
        ("mailto:a@b", "mailto:a@b"),
        ("a\u{2003}b:c@(d)", "a\u{2003}***@(d)"),
        ("", ""),
    ] {
        assert_eq!(mask_urls(text), masked);
        assert_eq!(mask_urls(masked), masked);
        let is_masked = masked_member(&json!({"config": {"db": masked}})).is_some();
        assert_eq!(is_masked, text != masked, "{masked}");
    }
}

fn hidden(config: &[(&str, &str)], text: &str) -> String {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut text = text.to_owned();
    BindingSecrets::of(&config, &HiddenValues::default()).hide(&mut text);
    text
}

#[test]
fn values_of_secrets_that_a_binding_names_are_in_nothing_that_is_told_whatever_they_are_called() {
    let values: HiddenValues =
        ["pa55\n", "{\"user\": \"x\"}\nsecond-line-of-it", " "].map(str::to_owned).into_iter().collect();
    assert_eq!(format!("{values:?}"), "***");
    let secrets = BindingSecrets::of(&BTreeMap::from([("region".to_owned(), "eu".to_owned())]), &values);
    let hidden = |text: &str| {
        let mut text = text.to_owned();
        secrets.hide(&mut text);
        text
    };
    assert_eq!(hidden("eu: pa55 xpa55x"), "eu: *** x***x");
    assert_eq!(hidden("has second-line-of-it"), "has ***");
    let bearer: HiddenValues = ["Bearer t0k-en", "http://me:p%40ss@h/"].map(str::to_owned).into_iter().collect();
    let mut text = "token t0k-en of p@ss expired".to_owned();
    BindingSecrets::of(&BTreeMap::new(), &bearer).hide(&mut text);
    assert_eq!(text, "token *** of *** expired");
    assert_eq!(hidden(r#"Some("pa55\n") "#), r#"Some("***") "#);
    assert_eq!(hidden("a b c"), "a b c", "what is nothing but blanks hides none");
}

#[test]
fn a_secret_is_named_by_an_object_with_nothing_else_in_it() {
    assert_eq!(named_secret(&json!({"secret": "orders-db"})), Some("orders-db"));
    for other in [json!({"secret": 1}), json!({"secret": "x", "y": 1}), json!("secret"), json!({})] {
        assert_eq!(named_secret(&other), None, "{other}");
    }
}

#[test]
fn what_a_component_says_is_told_without_the_secrets_of_its_binding() {
    let config = [("authorization", "Bearer s3cr3t-x"), ("url", "http://me:p%40ss@h/{key}"), ("field", "/status")];
    assert_eq!(hidden(&config, "sent Bearer s3cr3t-x to /status"), "sent *** to /status");
    assert_eq!(hidden(&config, "s3cr3t-x"), "***");
    assert_eq!(hidden(&config, "http://me:p%40ss@h/1: p@ss and p%40ss"), "http://***@h/1: *** and ***");
    assert_eq!(hidden(&[("password", "a\"b\\c")], r#"Some("a\"b\\c") a"b\c"#), r#"Some("***") ***"#);
    assert_eq!(hidden(&[("token", "abc")], "abc abcd xabc (abc)"), "*** abcd xabc (***)");
    assert_eq!(hidden(&[("token", "abcd")], "xabcdx"), "x***x");
    assert_eq!(hidden(&[("token", "")], "x"), "x");
    assert_eq!(hidden(&[("db", "Server=h;Pwd=s3cr3t")], "h: s3cr3t"), "h: ***");
    assert_eq!(hidden(&[("db", "me:pa55@tcp(h)/db")], "me: pa55"), "me: ***");
    assert_eq!(hidden(&[("url", "http://h#access_token=it's")], "it's"), "***");
}

#[test]
fn the_beginning_of_a_secret_that_a_cut_left_is_told_neither() {
    let config = [("token", "s3cr3t-é-x"), ("password", "s3cr3t"), ("pwd", "ab")];
    let line = "x".repeat(MAX_ERROR_TEXT);
    for (end, told) in [
        ("s3cr3t-é-x…", "***…"),
        ("s3cr3t-é…", "***…"),
        ("s3cr3t…", "***…"),
        (" s3c…", " ***…"),
        ("s3cr3t s3c", "*** s3c"),
        ("é…", "é…"),
    ] {
        assert_eq!(hidden(&config, &format!("{line}{end}")), format!("{line}{told}"));
    }
    assert_eq!(hidden(&config, "yes…"), "yes…", "nobody cuts so short a text");
}

#[test]
fn the_pieces_of_a_secret_around_what_is_filled_in_are_told_neither() {
    let url = "http://h/x?token=LEAKME{id}&sig={transaction}B-rest&code=A1{key}opens-all";
    let told = hidden(&[("url", url)], "http://h/x?token=LEAKME01C0&sig=01C0B-rest&code=A1o-7opens-all: status 503");
    for piece in ["LEAKME", "B-rest", "opens-all"] {
        assert!(!told.contains(piece), "{told}");
    }
    assert!(told.contains("status 503"), "{told}");
}
