from latency.host import cpu_fields, host_info


def test_this_computer_is_the_same_at_every_look() -> None:
    assert host_info(runtime="r", runtime_build="b") == host_info(runtime="r", runtime_build="b")


def test_processor_without_a_model_name_is_read_field_by_field() -> None:
    fields = cpu_fields("processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd08\n\nprocessor\t: 1\nCPU part\t: 0xd0a\n")
    assert fields["CPU part"] == "0xd08"
    assert "asimddp" in fields["Features"].split()
