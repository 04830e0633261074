"""Options: what each source may say, which source wins, and what is refused."""

import dataclasses
import os
import pwd
from pathlib import Path

import pytest

from containerfs import configuration, directories, values
from containerfs.cli import optionstring
from containerfs.options import OPTIONS, Options
from containerfs.setting import OptionError


@pytest.fixture
def config(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / "config.toml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def load(config):
    def load(*, file="", environ=None, **given) -> Options:
        environ = {"HOME": "/nowhere", **(environ or {})}
        return configuration.load(file=config(file), environ=environ, given=given)

    return load


# Values.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1000", 1000),
        ("512M", 512 * 1024**2),
        ("10G", 10 * 1024**3),
        ("1GiB", 1024**3),
        ("1.5k", 1536),
        ("2 TB", 2 * 1000**4),
        ("1b", 1),
    ],
)
def test_sizes_are_bytes(text, expected):
    assert values.size(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "1X", "M", "1e9", "inf", "nan", "٣"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="a size"):
        values.size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10", 10), ("10s", 10), ("500ms", 0.5), ("1.5", 1.5), ("5m", 300), ("2h", 7200), ("0", 0)],
)
def test_durations_are_seconds(text, expected):
    assert values.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "5 parsecs", "inf", "nan", "1e3"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="a duration"):
        values.seconds(text)


def test_a_time_limit_of_nothing_is_refused(load):
    with pytest.raises(OptionError, match="option timeout: '0' is not a duration above 0"):
        load(timeout="0")


@pytest.mark.parametrize("text", ["true", "Yes", "on", "1"])
def test_words_for_true(text):
    assert values.boolean(text)


@pytest.mark.parametrize("text", ["false", "No", "off", "0"])
def test_words_for_false(text):
    assert not values.boolean(text)


@pytest.mark.parametrize(("text", "expected"), [("022", 0o22), ("0o077", 0o77), ("0", 0)])
def test_masks_are_octal(text, expected):
    assert values.octal(text) == expected


@pytest.mark.parametrize("text", ["", "8", "-1", "00022", "0x1"])
def test_what_is_not_octal_is_refused(text):
    with pytest.raises(ValueError, match="octal"):
        values.octal(text)


def test_patterns_are_separated_by_colons_or_commas():
    assert values.patterns("*~:.#*,#*#") == ("*~", ".#*", "#*#")
    assert values.patterns('["a:b", "c,d"]') == ("a:b", "c,d")
    assert values.patterns("[ab]*") == ("[ab]*",)
    assert values.patterns("") == ()


def test_query_parameters_are_pairs():
    assert values.pairs("api-version=2025-04-01&x=a%26b") == {
        "api-version": "2025-04-01",
        "x": "a&b",
    }
    with pytest.raises(ValueError, match="name=value"):
        values.pairs("api-version")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("disabled", {"type": "disabled"}),
        ("allow:a.com,b.com", {"type": "allowlist", "allowed_domains": ["a.com", "b.com"]}),
        ('{"type": "new"}', {"type": "new"}),
    ],
)
def test_a_network_policy_has_short_forms(text, expected):
    assert values.network_policy(text) == expected


@pytest.mark.parametrize("text", ["", "allow:", "allow:a,,b", "[1]", "{", "enabled"])
def test_what_is_no_network_policy_is_refused(text):
    with pytest.raises(ValueError, match="disabled, allow:"):
        values.network_policy(text)


@pytest.mark.parametrize("minutes", ["0", "21", "1.5", "-5", ""])
def test_containers_expire_after_1_to_20_minutes(load, minutes):
    with pytest.raises(OptionError, match="a whole number from 1 to 20"):
        load(expires_after=minutes)


# Declarations.


def test_every_option_is_declared_once_and_whole():
    assert list(OPTIONS) == [field.name for field in dataclasses.fields(Options)]
    for option in OPTIONS.values():
        assert option.help
        assert "\n" not in option.help
        assert not option.help.endswith(".")
        assert option.unit or option.is_flag or isinstance(option.parse("1"), int)


def test_defaults_are_what_the_help_says(load):
    settings = load()
    for option in OPTIONS.values():
        if option.name in ("umask", "uid", "gid", "cache_dir"):
            continue  # told in words: the process decides
        expected = option.parse(option.default) if option.default else None
        assert (getattr(settings, option.name) or None) == (expected or None), option.name


def test_the_cache_is_where_xdg_says(load):
    assert load().cache_dir == Path("/nowhere/.cache/containerfs")
    assert load(environ={"XDG_CACHE_HOME": "/c"}).cache_dir == Path("/c/containerfs")
    assert load(environ={"XDG_CACHE_HOME": "relative"}).cache_dir == Path(
        "/nowhere/.cache/containerfs"
    )


@pytest.mark.parametrize("home", ["", "relative"])
def test_without_a_home_that_can_be_used_it_is_the_one_that_the_system_knows(
    load, monkeypatch, home
):
    monkeypatch.setenv("HOME", home)
    known = pwd.getpwuid(os.geteuid()).pw_dir
    assert load(environ={"HOME": home}).cache_dir == Path(known, ".cache/containerfs")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_who_is_unknown_to_the_system_is_at_home_where_a_login_would_put_them():
    os.seteuid(54321)
    try:
        assert directories.cache_dir({}) == Path("/.cache/containerfs")
    finally:
        os.seteuid(0)


# Sources.


def test_later_sources_win_over_earlier_ones(load):
    file, environ = (
        "ttl = 1\ntimeout = 1\nop_timeout = 1",
        {
            "CONTAINERFS_TTL": "2",
            "CONTAINERFS_TIMEOUT": "2",
        },
    )
    settings = load(file=file, environ=environ, ttl="3")
    assert (settings.ttl, settings.timeout, settings.op_timeout) == (3, 2, 1)
    assert settings.transfer_timeout == 30


def test_the_file_may_have_a_table_for_the_mount(load):
    assert load(file='[mount]\ncache_size = "1G"').cache_size == 1024**3


def test_the_file_has_the_types_of_toml(load):
    settings = load(
        file="""
        ro = true
        ttl = 2.5
        cache_size = 4096
        umask = "077"
        scratch = ["a:b", "*.tmp"]
        query = { api-version = "1" }
        network_policy = { type = "disabled" }
        """
    )
    assert settings.ro
    assert settings.ttl == 2.5
    assert settings.cache_size == 4096
    assert settings.umask == 0o77
    assert settings.scratch == ("a:b", "*.tmp")
    assert settings.query == {"api-version": "1"}
    assert settings.network_policy == {"type": "disabled"}


@pytest.mark.parametrize(
    "line",
    ["ttl = true", "ro = 1", 'ro = "yes"', "umask = 22", "ttl = [1]", "base_url = 1", "ttl = {}"],
)
def test_a_value_of_the_wrong_type_is_named_with_its_file_and_what_it_may_be(load, config, line):
    name = line.split()[0]
    hint = "it is true or false" if name == "ro" else "write it in quotes"
    said = f"config.toml: {name}: a value of type .* does not fit here: {hint}"
    with pytest.raises(OptionError, match=said):
        load(file=line)


def test_a_wrong_value_is_named_with_its_file(load):
    with pytest.raises(OptionError, match=r"config\.toml: ttl: 'soon' is not a duration"):
        load(file='ttl = "soon"')


def test_an_unknown_key_is_named_with_its_file(load):
    with pytest.raises(OptionError, match=r"config\.toml: unknown option tll \(did you mean ttl"):
        load(file="tll = 1")


def test_a_file_that_is_not_toml_is_refused(load):
    with pytest.raises(OptionError, match=r"config\.toml: "):
        load(file="ttl: 1")


def test_a_file_that_was_asked_for_must_exist(tmp_path):
    with pytest.raises(OptionError, match=r"missing\.toml: no such file"):
        configuration.load(file=tmp_path / "missing.toml", environ={}, given={})


def test_the_default_file_need_not_exist_and_is_read_when_it_does(tmp_path):
    environ = {"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path)}
    assert configuration.load(file=None, environ=environ, given={}).ttl == 10
    (tmp_path / "containerfs").mkdir()
    (tmp_path / "containerfs" / "config.toml").write_text("ttl = 4")
    assert configuration.load(file=None, environ=environ, given={}).ttl == 4


def test_a_variable_names_the_file(config):
    environ = {"CONTAINERFS_CONFIG": str(config("ttl = 4"))}
    assert configuration.load(file=None, environ=environ, given={}).ttl == 4


def test_an_unknown_variable_is_an_error_that_names_it(load):
    with pytest.raises(
        OptionError, match=r"CONTAINERFS_CACHESIZE \(did you mean CONTAINERFS_CACHE_SIZE"
    ):
        load(environ={"CONTAINERFS_CACHESIZE": "1G"})


def test_an_empty_variable_is_unset(load):
    assert load(environ={"CONTAINERFS_TTL": ""}).ttl == 10


def test_a_wrong_variable_is_named(load):
    with pytest.raises(OptionError, match="CONTAINERFS_TTL: 'soon' is not a duration"):
        load(environ={"CONTAINERFS_TTL": "soon"})


def test_an_unknown_option_suggests_the_nearest(load):
    with pytest.raises(OptionError, match=r"unknown option chache_size \(did you mean cache_size"):
        load(chache_size="1")


# Option strings.


def test_an_option_string_holds_flags_and_values():
    assert optionstring.parse("ro,ttl=5,cache-dir=/c d,noshow_expired,,nonempty") == {
        "ro": "true",
        "ttl": "5",
        "cache_dir": "/c d",
        "show_expired": "false",
        "nonempty": "true",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"network_policy=allow:a\,b,ro", {"network_policy": "allow:a,b", "ro": "true"}),
        ('network_policy="allow:a,b",ro', {"network_policy": "allow:a,b", "ro": "true"}),
        (
            'network_policy={"a": ["b", "c}"]},ro',
            {"network_policy": '{"a": ["b", "c}"]}', "ro": "true"},
        ),
        (r"api_key_command=a\\b\c", {"api_key_command": r"a\b\c"}),
        ("scratch=[ab]*:x,ttl=1", {"scratch": "[ab]*:x", "ttl": "1"}),
        ("query=a=b&c=d", {"query": "a=b&c=d"}),
        ("scratch=", {"scratch": ""}),
    ],
)
def test_commas_in_values_are_escaped_quoted_or_in_json(text, expected):
    assert optionstring.parse(text) == expected


def test_the_words_of_fstab_are_passed_over():
    words = (
        "defaults,auto,noauto,user,nouser,users,owner,group,_netdev,nofail,x-systemd.automount,"
        "x-systemd.idle-timeout=1min,comment=x,rw,suid,nosuid,dev,nodev,atime,noatime,"
        "relatime,nodiratime,sync,async,fsname=a,subtype=b,user=me,lazytime"
    )
    assert optionstring.parse(words) == {}


def test_noexec_is_no_word_of_fstab_only():
    assert optionstring.parse("user,noexec,exec") == {"exec": "true"}
    assert optionstring.parse("noexec,nosuid,nodev,user") == {"exec": "false"}


def test_rw_takes_back_an_earlier_ro():
    assert optionstring.parse("ro,rw") == {}
    assert optionstring.parse("rw,ro") == {"ro": "true"}


def test_an_unknown_word_is_an_error_unless_sloppy():
    with pytest.raises(OptionError, match=r"unknown option tll \(did you mean ttl\?\)"):
        optionstring.parse("ro,tll=5")
    assert optionstring.parse("ro,tll=5,nottl", sloppy=True) == {"ro": "true"}


def test_an_option_without_its_value_is_an_error():
    with pytest.raises(OptionError, match="option ttl needs a value: ttl=seconds"):
        optionstring.parse("ttl")
